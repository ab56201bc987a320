"""A request and its answer for every operation, as the providers' public pages have them; all written here.

Texts, names and numbers are ours; members, their order and their spelling are those of the page that each names. What
an answer of sound or a form holds is made by ``recordings``.
"""

from typing import NamedTuple

from dialects import recordings
from faregate.core.metering.meter import Report
from faregate.core.usage import NO_USAGE, Measure, Usage


class Exchange(NamedTuple):
    """One request, its answer, and what the answer says."""

    operation: str
    page: str
    request: bytes
    answer: bytes
    report: Report
    #: The model that the path names.
    path_model: str = ""


#: Begins every part of a form.
LINE = b"------------------------d74496d66958873e"


def form(*files: tuple[str, str, bytes], **fields: str) -> bytes:
    """A form as ``curl -F`` sends it: files by field, name and content, then fields."""
    parts = [
        b'%b\r\nContent-Disposition: form-data; name="%b"; filename="%b"\r\nContent-Type: %b\r\n\r\n%b\r\n'
        % (LINE, name.encode(), file.encode(), b"application/octet-stream", content)
        for name, file, content in files
    ]
    parts += [
        b'%b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (LINE, name.encode(), value.encode())
        for name, value in fields.items()
    ]
    return b"".join(parts) + LINE + b"--\r\n"


WAV = recordings.wav(16_000 * 9)[0]
PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(48)

EXCHANGES = {
    "chat": Exchange(
        "chat.completions",
        "OpenAI, API reference, Create chat completion",
        b"""{
    "model": "gpt-4.1",
    "messages": [
      {"role": "developer", "content": "You answer briefly."},
      {"role": "user", "content": "Hello!"}
    ],
    "max_completion_tokens": 100
  }""",
        b"""{
  "id": "chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG",
  "object": "chat.completion",
  "created": 1741570283,
  "model": "gpt-4.1-2025-04-14",
  "choices": [
    {
      "index": 0,
      "message": {
        "role": "assistant",
        "content": "Good day. What is it?",
        "refusal": null,
        "annotations": []
      },
      "logprobs": null,
      "finish_reason": "stop"
    }
  ],
  "usage": {
    "prompt_tokens": 19,
    "completion_tokens": 10,
    "total_tokens": 29,
    "prompt_tokens_details": {
      "cached_tokens": 8,
      "audio_tokens": 0
    },
    "completion_tokens_details": {
      "reasoning_tokens": 3,
      "audio_tokens": 0,
      "accepted_prediction_tokens": 0,
      "rejected_prediction_tokens": 0
    }
  },
  "service_tier": "default",
  "system_fingerprint": "fp_fc9f1d7035"
}
""",
        Report(
            Usage(11, 8, output_text=7, output_reasoning=3),
            "",
            "gpt-4.1-2025-04-14",
            "chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG",
            "default",
        ),
    ),
    "completion": Exchange(
        "completions",
        "OpenAI, API reference, Create completion",
        b"""{
    "model": "gpt-3.5-turbo-instruct",
    "prompt": "Count to three",
    "max_tokens": 7,
    "temperature": 0
  }""",
        b"""{
  "id": "cmpl-uqkvlQyYK7bGYrRHQ0eXlWi7",
  "object": "text_completion",
  "created": 1589478378,
  "model": "gpt-3.5-turbo-instruct",
  "system_fingerprint": "fp_44709d6fcb",
  "choices": [
    {
      "text": "\\n\\nOne, two,",
      "index": 0,
      "logprobs": null,
      "finish_reason": "length"
    }
  ],
  "usage": {
    "prompt_tokens": 5,
    "completion_tokens": 7,
    "total_tokens": 12
  }
}
""",
        Report(Usage(5, output_text=7), "", "gpt-3.5-turbo-instruct", "cmpl-uqkvlQyYK7bGYrRHQ0eXlWi7"),
    ),
    "embedding": Exchange(
        "embeddings",
        "OpenAI, API reference, Create embeddings",
        b'{"input": "The soup was good and the waiter", "model": "text-embedding-3-small", "encoding_format": "float"}',
        b"""{
  "object": "list",
  "data": [
    {
      "object": "embedding",
      "embedding": [
        0.0023064255,
        -0.009327292
      ],
      "index": 0
    }
  ],
  "model": "text-embedding-3-small",
  "usage": {
    "prompt_tokens": 8,
    "total_tokens": 8
  }
}
""",
        Report(Usage(8), "", "text-embedding-3-small"),
    ),
    "response": Exchange(
        "responses",
        "OpenAI, API reference, Create a model response",
        b'{"model": "gpt-4.1", "input": "Three words about a unicorn.", "max_output_tokens": 100}',
        b"""{
  "id": "resp_67ccd2bed1ec8190b14f964abc0542670bb6a6b452d3795b",
  "object": "response",
  "created_at": 1741476542,
  "status": "completed",
  "completed_at": 1741476543,
  "error": null,
  "incomplete_details": null,
  "instructions": null,
  "max_output_tokens": 100,
  "model": "gpt-4.1-2025-04-14",
  "output": [
    {
      "type": "message",
      "id": "msg_67ccd2bf17f0819081ff3bb2cf6508e60bb6a6b452d3795b",
      "status": "completed",
      "role": "assistant",
      "content": [
        {
          "type": "output_text",
          "text": "White, shy, one-horned.",
          "annotations": []
        }
      ]
    }
  ],
  "parallel_tool_calls": true,
  "previous_response_id": null,
  "reasoning": {
    "effort": null,
    "summary": null
  },
  "service_tier": "default",
  "store": true,
  "temperature": 1.0,
  "text": {
    "format": {
      "type": "text"
    }
  },
  "tool_choice": "auto",
  "tools": [],
  "top_p": 1.0,
  "truncation": "disabled",
  "usage": {
    "input_tokens": 36,
    "input_tokens_details": {
      "cached_tokens": 4,
      "cache_write_tokens": 0
    },
    "output_tokens": 87,
    "output_tokens_details": {
      "reasoning_tokens": 7
    },
    "total_tokens": 123
  },
  "user": null,
  "metadata": {}
}
""",
        Report(
            Usage(32, 4, output_text=80, output_reasoning=7),
            "",
            "gpt-4.1-2025-04-14",
            "resp_67ccd2bed1ec8190b14f964abc0542670bb6a6b452d3795b",
            "default",
        ),
    ),
    "image": Exchange(
        "images.generations",
        "OpenAI, API reference, Create image",
        b'{"model": "gpt-image-1.5", "prompt": "A sea otter.", "n": 1, "size": "1024x1024", "quality": "high"}',
        b"""{
  "created": 1713833628,
  "data": [
    {
      "b64_json": "iVBORw0KGgo="
    }
  ],
  "background": "opaque",
  "output_format": "png",
  "size": "1024x1024",
  "quality": "high",
  "usage": {
    "total_tokens": 4174,
    "input_tokens": 14,
    "output_tokens": 4160,
    "input_tokens_details": {
      "text_tokens": 14,
      "image_tokens": 0
    }
  }
}
""",
        Report(Usage(14, other=(Measure("output_image_tokens", "", 4160),))),
    ),
    "image_by_size": Exchange(
        "images.generations",
        "OpenAI, API reference, Create image (DALL-E 3)",
        b'{"model": "dall-e-3", "prompt": "A sea otter.", "n": 1, "size": "1024x1024"}',
        b"""{
  "created": 1589478378,
  "data": [
    {
      "url": "https://images.example/otter.png",
      "revised_prompt": "A sea otter that floats on its back."
    }
  ]
}
""",
        Report(),
    ),
    "edited_image": Exchange(
        "images.edits",
        "OpenAI, API reference, Create image edit",
        form(("image[]", "soap.png", PICTURE), ("image[]", "salt.png", PICTURE), model="gpt-image-1.5", prompt="A box"),
        b"""{
  "created": 1713833628,
  "data": [
    {
      "b64_json": "iVBORw0KGgo="
    }
  ],
  "usage": {
    "total_tokens": 4860,
    "input_tokens": 700,
    "output_tokens": 4160,
    "input_tokens_details": {
      "text_tokens": 54,
      "image_tokens": 646
    },
    "output_tokens_details": {
      "text_tokens": 0,
      "image_tokens": 4160
    }
  }
}
""",
        Report(Usage(54, other=(Measure("input_image_tokens", "", 646), Measure("output_image_tokens", "", 4160)))),
    ),
    "image_variation": Exchange(
        "images.variations",
        "OpenAI, API reference, Create image variation",
        form(("image", "otter.png", PICTURE), model="dall-e-2", n="2", size="1024x1024"),
        b"""{
  "created": 1589478378,
  "data": [
    {
      "url": "https://images.example/1.png"
    },
    {
      "url": "https://images.example/2.png"
    }
  ]
}
""",
        Report(),
    ),
    "transcript": Exchange(
        "audio.transcriptions",
        "OpenAI, API reference, Create transcription",
        form(("file", "audio.wav", WAV), model="gpt-4o-transcribe", prompt="Travel"),
        b"""{
  "text": "Where the road ends, you walk.",
  "usage": {
    "type": "tokens",
    "input_tokens": 94,
    "input_token_details": {
      "text_tokens": 4,
      "audio_tokens": 90
    },
    "output_tokens": 9,
    "total_tokens": 103
  }
}
""",
        Report(Usage(4, input_audio=90, output_text=9)),
    ),
    "timed_transcript": Exchange(
        "audio.transcriptions",
        "OpenAI, API reference, Create transcription (word timestamps)",
        form(("file", "audio.wav", WAV), model="whisper-1", response_format="verbose_json"),
        b"""{
  "task": "transcribe",
  "language": "english",
  "duration": 8.470000267028809,
  "text": "The beach was busy.",
  "words": [
    {
      "word": "The",
      "start": 0.0,
      "end": 0.23999999463558197
    }
  ],
  "usage": {
    "type": "duration",
    "seconds": 9
  }
}
""",
        Report(Usage(other=(Measure("seconds", "", 9),))),
    ),
    "subtitles": Exchange(
        "audio.transcriptions",
        "OpenAI, API reference, Create transcription (response_format srt)",
        form(("file", "audio.wav", WAV), model="whisper-1", response_format="srt"),
        b"1\n00:00:00,000 --> 00:00:02,000\nThe beach was busy.\n\n",
        Report(),
    ),
    "translation": Exchange(
        "audio.translations",
        "OpenAI, API reference, Create translation",
        form(("file", "german.wav", WAV), model="whisper-1"),
        b'{\n  "text": "Hello, my name is Wolfgang."\n}\n',
        Report(),
    ),
    "speech": Exchange(
        "audio.speech",
        "OpenAI, API reference, Create speech",
        b'{"model": "gpt-4o-mini-tts", "input": "The quick fox ran.", "voice": "alloy", "response_format": "wav"}',
        recordings.wav(24_000 * 2, 24_000)[0],
        Report(),
    ),
    "moderation": Exchange(
        "moderations",
        "OpenAI, API reference, Create moderation",
        b'{"model": "omni-moderation-latest", "input": "...text to classify goes here..."}',
        b"""{
  "id": "modr-970d409ef3bef3b70c73d8232df86e7d",
  "model": "omni-moderation-latest",
  "results": [
    {
      "flagged": false,
      "categories": {
        "sexual": false,
        "violence": false
      },
      "category_scores": {
        "sexual": 2.34135824776394e-7,
        "violence": 0.0001
      },
      "category_applied_input_types": {
        "sexual": [
          "text"
        ],
        "violence": [
          "text"
        ]
      }
    }
  ]
}
""",
        Report(None, "", "omni-moderation-latest", "modr-970d409ef3bef3b70c73d8232df86e7d"),
    ),
    "rerank_by_search": Exchange(
        "rerank",
        "Cohere, API reference, Rerank (v2)",
        b'{"model": "rerank-v4.0-pro", "query": "Which is it?", "documents": ["Bern.", "Geneva."], "top_n": 1}',
        b"""{
  "results": [
    {
      "index": 0,
      "relevance_score": 0.999071
    }
  ],
  "id": "07734bd2-2473-4f07-94e1-0d9f0e6843cf",
  "meta": {
    "api_version": {
      "version": "2",
      "is_experimental": false
    },
    "billed_units": {
      "search_units": 1
    }
  }
}
""",
        Report(Usage(other=(Measure("search_units", "", 1),)), "", "", "07734bd2-2473-4f07-94e1-0d9f0e6843cf"),
    ),
    "rerank_by_tokens": Exchange(
        "rerank",
        "Jina AI, Reranker API",
        b'{"model": "jina-reranker-v3", "query": "Which is the capital?", "documents": ["Bern.", "Geneva."]}',
        b"""{
  "model": "jina-reranker-v3",
  "object": "list",
  "usage": {
    "total_tokens": 21
  },
  "results": [
    {
      "index": 0,
      "relevance_score": 0.87,
      "document": {
        "text": "Bern."
      }
    }
  ]
}
""",
        Report(Usage(21), "", "jina-reranker-v3"),
    ),
    "batch": Exchange(
        "batches",
        "OpenAI, API reference, Create batch",
        b"""{
    "input_file_id": "file-abc123",
    "endpoint": "/v1/chat/completions",
    "completion_window": "24h"
  }""",
        b"""{
  "id": "batch_abc123",
  "object": "batch",
  "endpoint": "/v1/chat/completions",
  "errors": null,
  "input_file_id": "file-abc123",
  "completion_window": "24h",
  "status": "validating",
  "output_file_id": null,
  "error_file_id": null,
  "created_at": 1711471533,
  "in_progress_at": null,
  "expires_at": null,
  "completed_at": null,
  "request_counts": {
    "total": 0,
    "completed": 0,
    "failed": 0
  },
  "metadata": null
}
""",
        Report(None, "", "", "batch_abc123", pending=True),
    ),
    "message": Exchange(
        "messages",
        "Anthropic, Messages API, Create a message",
        b"""{
    "model": "claude-opus-5",
    "max_tokens": 1024,
    "cache_control": {"type": "ephemeral", "ttl": "1h"},
    "messages": [
      {"role": "user", "content": "Hello, world"}
    ]
  }""",
        b"""{
  "id": "msg_013Zva2CMHLNnXjNJJKqJ2EF",
  "container": null,
  "content": [
    {
      "citations": null,
      "text": "Hi! My name is Claude.",
      "type": "text"
    }
  ],
  "model": "claude-opus-5",
  "role": "assistant",
  "stop_details": null,
  "stop_reason": "end_turn",
  "stop_sequence": null,
  "type": "message",
  "usage": {
    "cache_creation": {
      "ephemeral_1h_input_tokens": 20,
      "ephemeral_5m_input_tokens": 10
    },
    "cache_creation_input_tokens": 30,
    "cache_read_input_tokens": 40,
    "inference_geo": "global",
    "input_tokens": 7,
    "output_tokens": 50,
    "output_tokens_details": {
      "thinking_tokens": 15
    },
    "server_tool_use": {
      "web_fetch_requests": 0,
      "web_search_requests": 0
    },
    "service_tier": "standard"
  }
}
""",
        Report(
            Usage(7, 40, 10, 0, 35, 15, other=(Measure("cache_write_1h_tokens", "", 20),)),
            "",
            "claude-opus-5",
            "msg_013Zva2CMHLNnXjNJJKqJ2EF",
        ),
    ),
    "message_count": Exchange(
        "messages.count_tokens",
        "Anthropic, Messages API, Count tokens in a message",
        b'{"model": "claude-opus-5", "messages": [{"role": "user", "content": "Hello, world"}]}',
        b'{\n  "input_tokens": 2095\n}\n',
        Report(NO_USAGE),
    ),
    "gemini": Exchange(
        "gemini.generate",
        "Google, Gemini API, Generating content (generateContent)",
        b"""{
    "contents": [{
      "parts":[{"text": "How does a loom work?"}]
    }],
    "generationConfig": {"maxOutputTokens": 100}
  }""",
        b"""{
  "candidates": [
    {
      "content": {
        "parts": [
          {
            "text": "It crosses threads."
          }
        ],
        "role": "model"
      },
      "finishReason": "STOP",
      "index": 0
    }
  ],
  "usageMetadata": {
    "promptTokenCount": 8,
    "candidatesTokenCount": 5,
    "totalTokenCount": 53,
    "promptTokensDetails": [
      {
        "modality": "TEXT",
        "tokenCount": 8
      }
    ],
    "thoughtsTokenCount": 40
  },
  "modelVersion": "gemini-2.5-flash",
  "responseId": "mAitaLmkHPPlz7IPvtfUqQ4"
}
""",
        Report(Usage(8, output_text=5, output_reasoning=40), "", "gemini-2.5-flash", "mAitaLmkHPPlz7IPvtfUqQ4"),
        "gemini-2.5-flash",
    ),
    "gemini_embedding": Exchange(
        "gemini.embed",
        "Google, Gemini API, Embeddings (embedContent)",
        b"""{
    "model": "models/gemini-embedding-001",
    "content": {
      "parts":[{"text": "What is the meaning of life?"}]
    }
  }""",
        b"""{
  "embedding": {
    "values": [
      -0.022374554,
      -0.004560777
    ]
  }
}
""",
        Report(),
        "gemini-embedding-001",
    ),
    "gemini_embeddings": Exchange(
        "gemini.batch_embed",
        "Google, Gemini API, Embeddings (batchEmbedContents)",
        b"""{"requests": [
    {"model": "models/gemini-embedding-2", "content": {"parts":[{"text": "What is the meaning of life?"}]}},
    {"model": "models/gemini-embedding-2", "content": {"parts":[{"text": "How much wood would a woodchuck chuck?"}]}}
  ]}""",
        b"""{
  "embeddings": [
    {
      "values": [
        -0.022374554
      ]
    },
    {
      "values": [
        -0.004560777
      ]
    }
  ],
  "usageMetadata": {
    "promptTokenCount": 18,
    "promptTokensDetails": [
      {
        "modality": "TEXT",
        "tokenCount": 18
      }
    ],
    "totalTokenCount": 18
  }
}
""",
        Report(Usage(18)),
        "gemini-embedding-2",
    ),
    "gemini_count": Exchange(
        "gemini.count_tokens",
        "Google, Gemini API, Counting tokens (countTokens)",
        b'{"contents": [{"parts":[{"text": "The quick brown fox."}]}]}',
        b"""{
  "totalTokens": 5,
  "promptTokensDetails": [
    {
      "modality": "TEXT",
      "tokenCount": 5
    }
  ]
}
""",
        Report(NO_USAGE),
        "gemini-2.5-flash",
    ),
}
