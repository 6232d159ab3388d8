"""The offline engine: text and barcodes, read by one process for the whole machine."""
