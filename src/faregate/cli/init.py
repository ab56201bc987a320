"""``faregate init``: a commented configuration that works as it is, and the secrets of an installation."""

import os
from pathlib import Path
from typing import Annotated

import typer

from faregate.cli.output import DATA_DEFAULT, Data, Json, emit, emit_json
from faregate.config.folder import prepare
from faregate.config.secrets import secrets_of, write_private
from faregate.errors import Failed, Unsafe

CONFIG_DEFAULT = Path("faregate.yaml")

TEMPLATE = """\
# Faregate's configuration. `faregate check` tells everything that is wrong with it, at once;
# `faregate check --schema` prints its JSON Schema for editors. Secrets stay outside of it:
# ${NAME} is a variable of the environment, file:PATH the content of a file.
# Any single value can be overridden by a variable: FAREGATE_GATEWAY_PORT is gateway.port.

# Accounts at model services. As written, calls go to the provider simulator on this machine
# (start it with `faregate simulator --port 4010`): no network, no key, nothing costs money.
providers:
  - name: simulator
    kind: openai                            # openai | azure_openai | anthropic | gemini
    base_url: http://127.0.0.1:4010/v1      # https, or plain http on loopback
    api_key: sk-any-key-will-do             # the simulator takes any; of real ones write ${NAME} or file:PATH
    lookup: {path: "/simulator/truth/{id}"} # it can be asked what became of a request

  # - name: openai
  #   kind: openai
  #   base_url: https://api.openai.com/v1
  #   api_key: ${OPENAI_API_KEY}

  # - name: azure-weu
  #   kind: azure_openai
  #   base_url: https://example.openai.azure.com
  #   api_key: ${AZURE_OPENAI_API_KEY}
  #   api_version: "2024-10-21"
  #   timeouts: {connect: 5s, first_byte: 60s, idle: 60s, total: 600s}

# Places to send calls to. A provider of kind openai offers its priced models without any.
# deployments:
#   - {name: weu-gpt-4o, provider: azure-weu, deployment: my-gpt4o, model: gpt-4o}

# Names that callers may use, and where they go, in order.
# models:
#   - {name: gpt-4o, to: [weu-gpt-4o, openai/gpt-4o]}

# Prices are bundled; these replace them. Dollars as text, for so many units.
# pricing:
#   unknown: refuse                         # refuse | fallback | ceiling
#   overrides:
#     - {provider: openai, model: house-model, unit: input_tokens,  per: 1000000, price: "2.50"}
#     - {provider: openai, model: house-model, unit: output_tokens, per: 1000000, price: "10"}

# Which providers a stage uses; a stage that is not named uses all.
# stages:
#   dev: {providers: [openai]}

# limits:
#   require: false                          # true: a call that no hard limit in dollars covers is refused
#   default_output_tokens: 4096             # aimed at for callers that set no output cap, near a limit
#   min_answer_tokens: 256                  # and never below
#   stream_hold: whole                      # or steps: streams hold that much at a time

gateway:
  host: 127.0.0.1                           # elsewhere: with tls, or behind_proxy: true
  port: 4000
  # tls: {certificate_file: /etc/faregate/tls.pem, key_file: /etc/faregate/tls.key}
  # drain: 30s                              # how long running calls may go on at a stop

console:
  host: 127.0.0.1
  port: 4001

# durability: process                       # process | power (waits for the disk before every answer)
# logging: {level: info, format: auto}
"""

Config = Annotated[Path, typer.Option("--config", metavar="FILE", help="Where to write the configuration.")]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing configuration.")]


def command(
    config: Config = CONFIG_DEFAULT, data: Data = DATA_DEFAULT, force: Force = False, json: Json = False
) -> int:
    """Write a commented faregate.yaml that works as it is, and make the secrets of the installation."""
    if config.exists() and not force:
        raise Unsafe(
            f"{config} exists already", code="exists", hint="use --force to replace it, or --config for another"
        )
    if not config.absolute().parent.is_dir():
        raise Failed(f"{config.absolute().parent} does not exist", hint="make it, or name another place with --config")
    folder = prepare(data)
    kept = secrets_of(folder, os.urandom)
    write_private(config.absolute(), TEMPLATE.encode())
    if json:
        emit_json({"config": str(config), "secrets": str(folder.secrets), "secrets_made": kept.made})
        return 0
    emit(f"wrote {config}")
    emit(f"{'made' if kept.made else 'kept'} {folder.secrets} (keep a copy of it with your backups)")
    emit("next: `faregate simulator --port 4010` in another terminal, then `faregate serve`")
    return 0
