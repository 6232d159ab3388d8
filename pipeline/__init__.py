"""The processing of images: fetch, decode, pack, ask the model, check, merge, price.

The data flow is Request → Job → Images → Chunks → Replies → Records → Result, and each stage is a module. Nothing here imports
Flask, Celery, SQL or S3.
"""
