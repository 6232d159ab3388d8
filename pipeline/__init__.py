"""What happens to images: fetch, decode, pack, ask the model, check, merge, price.

Request → Job → Images → Chunks → Replies → Records → Result; a stage is a module. Nothing here knows Flask, Celery, SQL or S3.
"""
