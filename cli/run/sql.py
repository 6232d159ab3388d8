"""The tables of the state file."""

from __future__ import annotations

SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS jobs (
    no INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, id TEXT NOT NULL DEFAULT '', state TEXT NOT NULL, fields TEXT NOT NULL,
    images INTEGER NOT NULL, credits INTEGER NOT NULL DEFAULT 0, money REAL NOT NULL DEFAULT 0, created REAL NOT NULL);
CREATE TABLE IF NOT EXISTS images (
    no INTEGER PRIMARY KEY, source BLOB NOT NULL UNIQUE, name TEXT NOT NULL, is_url INTEGER NOT NULL, size INTEGER NOT NULL,
    mtime INTEGER NOT NULL, sha256 TEXT NOT NULL DEFAULT '', chosen INTEGER NOT NULL, changed INTEGER NOT NULL DEFAULT 0,
    fault TEXT NOT NULL, fault_text TEXT NOT NULL, state TEXT NOT NULL, job INTEGER, place INTEGER, tries INTEGER NOT NULL DEFAULT 0,
    code TEXT NOT NULL DEFAULT '', message TEXT NOT NULL DEFAULT '', result TEXT);
CREATE TABLE IF NOT EXISTS evidence (image INTEGER PRIMARY KEY, found TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS images_by_name ON images (chosen, name);
CREATE INDEX IF NOT EXISTS images_by_job ON images (job, place);
"""
#: Adds an image, or finds it again and notes whether it looks changed.
UPSERT = """
INSERT INTO images (source, name, is_url, size, mtime, chosen, fault, fault_text, state, code, message)
VALUES (:source, :name, :is_url, :size, :mtime, 1, :code, :message, :state, :code, :message)
ON CONFLICT (source) DO UPDATE SET name = excluded.name, chosen = 1, fault = excluded.fault, fault_text = excluded.fault_text,
    changed = images.size <> excluded.size OR images.mtime <> excluded.mtime OR images.fault <> excluded.fault,
    size = excluded.size, mtime = excluded.mtime
"""
