"""The components of the OpenAPI document for the service itself: what it can, how it is, and how it refuses."""

from __future__ import annotations

from api.openapi.building import Schema, number, or_null, record, ref, several, text

SERVICE: dict[str, Schema] = {
    "Formats": record(
        {
            "supportedFormats": several(text(), "These go to the model as they are."),
            "convertedFormats": several(text(), "These become PNG."),
            "limits": record(
                {
                    "maxImages": number(),
                    "maxImageBytes": number(),
                    "maxTotalBytes": number(),
                    "maxOutputTokensPerCall": number(),
                }
            ),
            "credits": record({"base": number(), "perImage": number()}),
        }
    ),
    "Capabilities": record(
        {
            "version": text("Of the service."),
            "engine": text("The setting `ENGINE`."),
            "models": several(ref("Model"), "Those that a request may name. The first one is the default."),
            "limits": record(
                {
                    "imagesPerRequest": number(),
                    "imageBytes": number("Of one image, as received."),
                    "totalBytes": number("Of all images of a request, as received."),
                    "bodyBytes": number("Of a request's body."),
                    "imagePixels": number(),
                    "imageSide": number("Pixels."),
                    "imagesPerCall": number(),
                    "outputTokensPerCall": number(),
                    "promptChars": number(),
                    "customIdChars": number(),
                    "metadataBytes": number(),
                    "openJobs": number("Of the account."),
                    "requestsPerWindow": number("Of the key."),
                    "windowSeconds": number(),
                    "waitSeconds": number("The longest that a request is held open."),
                    "resultSeconds": number("How long results are kept."),
                }
            ),
            "credits": record({"base": number(), "perImage": number(), "available": number("Of the account.")}),
            "keepInputsMaxSeconds": number("The highest `keepInputsSeconds`."),
            "cache": {"type": "boolean", "description": "Whether `cache` has an effect."},
            "ready": {"type": "boolean", "description": "As `/readyz`."},
            "problems": several(ref("CapabilityProblem"), "What keeps the account's requests from being answered now."),
            "warnings": several(text(), "What every job on this engine says in its `warnings`."),
        }
    ),
    "Model": record(
        {
            "name": text(),
            "default": {"type": "boolean"},
            "engine": text(),
            "price": or_null(
                record(
                    {
                        "input": {"type": "number", "minimum": 0},
                        "output": {"type": "number", "minimum": 0},
                        "economy": or_null({"type": "number", "description": "The fraction of it in the tier economy."}),
                    },
                    what="Dollars for a million tokens, today. Null where the settings have no price.",
                )
            ),
            "problem": or_null(text("What somebody has to correct before this model can be asked.")),
            "can": record(
                {
                    "prompt": {"type": "boolean", "description": "Whether it follows `prompt`."},
                    "schema": {"type": "boolean", "description": "Whether it fills `schema`."},
                    "detail": several(text(), "The values of `detail` that differ for it."),
                    "thinking": several(text(), "The values of `thinking` that have an effect."),
                    "tiers": several(text(), "The values of `tier` that it has."),
                }
            ),
        }
    ),
    "CapabilityProblem": record(
        {
            "code": text(enum=["database_away", "redis_away", "scratch_away", "model_away", "insufficient_credits"]),
            "what": text("For a person."),
            "fix": text("What to do, for a person."),
        }
    ),
    "Health": record({"status": text(enum=["ok"])}),
    "Readiness": record(
        {
            "status": text(enum=["ready", "not ready"]),
            "checks": {"type": "object", "additionalProperties": text(enum=["ok", "away"])},
        },
        {"details": {"type": "object", "additionalProperties": text(), "description": "On loopback or with `METRICS_TOKEN`."}},
    ),
    "CompatibleError": record({"error": text()}, what="The code is in `X-Error-Code`."),
    "Error": record({"error": text("What, where and how to mend it; may change."), "code": text("Stable.")}),
    "Problem": record(
        {
            "type": text(enum=["about:blank"]),
            "title": text(),
            "status": number(minimum=400, maximum=599),
            "detail": text(),
            "error": text(),
            "code": text("Stable."),
        },
        what="RFC 9457, for who accepts `application/problem+json`.",
    ),
}
