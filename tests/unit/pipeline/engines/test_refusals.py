"""What the refusals of real servers are about. Each message is one that such a server sends."""

from __future__ import annotations

import pytest

from pipeline.engines.refusals import Room, Why, most_pictures, room, why

VLLM_OUTPUT = (
    "'max_tokens' or 'max_completion_tokens' is too large: 8192. This model's maximum context length is 8192 tokens and your "
    "request has 1300 input tokens (8192 > 8192 - 1300)."
)
VLLM_OLD = (
    "This model's maximum context length is 4096 tokens. However, you requested 9492 tokens (1300 in the messages, 8192 in the "
    "completion). Please reduce the length of the messages or completion."
)
VLLM_NEW = (
    "This model's maximum context length is 8192 tokens. However, you requested 8192 output tokens and your prompt contains at "
    "least 1300 input tokens, for a total of at least 9492 tokens."
)
SGLANG = (
    "Requested token count exceeds the model's maximum context length of 8192 tokens. You requested a total of 9492 tokens: 1300 "
    "tokens from the input messages and 8192 tokens for the completion."
)
TGI = "`inputs` tokens + `max_new_tokens` must be <= 8192. Given: 1300 `inputs` tokens and 8192 `max_new_tokens`"
OPENAI_OUTPUT = "max_tokens is too large: 8192. This model supports at most 4096 completion tokens, whereas you provided 8192."
GROQ = "`max_tokens` must be less than or equal to `4096`, the maximum value for `max_tokens` is less than the `context_window`"
DEEPSEEK = "Invalid max_tokens value, the valid range of max_tokens is [1, 4096]"
GEMINI_OUTPUT = (
    "Unable to submit request because it has a maxOutputTokens value of 8192 but the supported range is from 1 (inclusive) to 4097 "
    "(exclusive). Update the value and try again."
)


@pytest.mark.parametrize(
    ("status", "said", "about"),
    [
        # pictures
        (400, "Provided image is not valid.", Why.PICTURE),
        (400, "Unable to process input image. Please retry or report in https://developers.generativeai.google", Why.PICTURE),
        (400, "Failed to load image or audio file", Why.PICTURE),
        (400, "cannot identify image file <_io.BytesIO object at 0x7f>", Why.PICTURE),
        (422, "broken data stream when reading image file", Why.PICTURE),
        (400, "Invalid image: one image is corrupt", Why.PICTURE),
        (400, "Unsupported MIME type: image/webp", Why.PICTURE),
        # too many, too long
        (400, "At most 1 image(s) may be provided in one request.", Why.TOO_MANY),
        (500, "this model only supports one image while more than one image requested", Why.TOO_MANY),
        (500, "vision model only supports a single image per message", Why.TOO_MANY),
        (400, "Multiple images are not supported", Why.TOO_MANY),
        (400, "Please use fewer than 3600 images in your request.", Why.TOO_MANY),
        (413, "Request Entity Too Large", Why.TOO_LONG),
        (413, "", Why.TOO_LONG),
        (400, "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).", Why.TOO_LONG),
        (400, "request (20000 tokens) exceeds the available context size (4096 tokens), try increasing it", Why.TOO_LONG),
        (
            400,
            "This model's maximum context length is 8192 tokens. However, your messages resulted in 20800 tokens.",
            Why.TOO_LONG,
        ),
        # the output limit
        *((400, said, Why.OUTPUT) for said in (VLLM_OUTPUT, VLLM_OLD, VLLM_NEW, SGLANG, TGI, OPENAI_OUTPUT, GROQ, DEEPSEEK)),
        (400, GEMINI_OUTPUT, Why.OUTPUT),
        (
            400,
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens'",
            Why.LIMIT_NAME,
        ),
        (422, "body max_tokens Extra inputs are not permitted", Why.LIMIT_NAME),
        # the way of asking
        (400, "System role not supported", Why.SYSTEM),
        (500, "Jinja Exception: System role not supported", Why.SYSTEM),
        (400, "Conversation roles must alternate user/assistant/user/assistant/...", Why.SYSTEM),
        (400, "Developer instruction is not enabled for models/gemma-3-27b-it", Why.SYSTEM),
        (400, "JSON mode is not enabled for models/gemma-3-27b-it", Why.FORMAT),
        (400, "'response_format.type' must be 'json_schema' or 'text'", Why.FORMAT),
        (400, "response_format json_schema is not supported", Why.FORMAT),
        (400, "The specified schema produces a constraint that has too many states for serving.", Why.SCHEMA),
        (400, "Invalid schema for response_format 'records': In context=(), 'additionalProperties' is required", Why.SCHEMA),
        (500, "Failed to parse grammar", Why.SCHEMA),
        (400, 'Invalid JSON payload received. Unknown name "responseJsonSchema": Cannot find field.', Why.FORMAT),
        (400, "Media resolution is not supported for this model", Why.DETAIL),
        (422, "body messages 1 content 1 image_url detail Extra inputs are not permitted", Why.DETAIL),
        (400, "This model only support stream mode, please enable the stream parameter", Why.STREAM),
        (400, 'Invalid JSON payload received. Unknown name "store": Cannot find field.', Why.FIELD),
        (400, "Thinking level is not supported for this model.", Why.FIELD),
        # neither
        (400, "Request contains an invalid argument.", Why.OPEN),
        (400, "Bad Request", Why.OPEN),
        (500, "Internal Server Error", Why.OPEN),
        (500, "an image could not be processed", Why.OPEN),
        # not about the request
        (400, "API key not valid. Please pass a valid API key.", Why.SETUP),
        (400, "User location is not supported for the API use.", Why.SETUP),
        (
            400,
            "/chat/completions: Invalid model name passed in model=gone. Call `/v1/models` to view available models",
            Why.SETUP,
        ),
        (500, "litellm.InternalServerError: InternalServerError: OpenAIException - Connection error.. Model Group=v", Why.AWAY),
        (500, "litellm.APIConnectionError: OllamaException - [Errno 111] Connection refused", Why.AWAY),
        (500, "image input is not supported by this server", Why.BLIND),
        (400, "At most 0 image(s) may be provided in one prompt.", Why.BLIND),
        (405, "Method Not Allowed", Why.SETUP),
        (301, "", Why.OTHER),
        (400, "Client sent an HTTP request to an HTTPS server.", Why.SETUP),
        (400, "The plain HTTP request was sent to HTTPS port", Why.SETUP),
        (400, "The response was filtered by content management policy", Why.BLOCKED),
    ],
)
def test_a_refusal_is_about_what_its_words_say(status, said, about):
    assert why(status, said) is about


@pytest.mark.parametrize(
    ("said", "most"),
    [
        ("At most 1 image(s) may be provided in one request.", 1),
        ("At most 4 image(s) may be provided in one prompt.", 4),
        ("this model only supports one image while more than one image requested", 1),
        ("vision model only supports a single image per message", 1),
        ("Multiple images are not supported", 1),
        ("Please use fewer than 3600 images in your request.", 3599),
        ("Too many images: 16. The maximum is 8.", 8),
        ("You set image=1 in `--limit-mm-per-prompt`, but passed 2 image items", 1),
        ("The number of images is too high", None),
    ],
)
def test_how_many_pictures_a_call_may_have_is_read_from_the_words(said, most):
    assert most_pictures(said) == most


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        *((said, Room(context=8192, input=1300)) for said in (VLLM_OUTPUT, VLLM_NEW, SGLANG, TGI)),
        (VLLM_OLD, Room(context=4096, input=1300)),
        *((said, Room(output=4096)) for said in (OPENAI_OUTPUT, GROQ, DEEPSEEK, GEMINI_OUTPUT)),
        ("max_tokens is wrong", Room()),
    ],
)
def test_what_a_call_leaves_of_the_context_is_read_from_the_words(said, expected):
    assert room(said, 8192) == expected
