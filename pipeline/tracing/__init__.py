"""Traces: spans of the work of a process, sent by OpenTelemetry if the standard variables ask for it."""
