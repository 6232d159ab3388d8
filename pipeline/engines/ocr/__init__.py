"""The offline engine. One process for the whole machine reads text and barcodes."""
