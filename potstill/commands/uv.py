"""pip's settings in the words of uv, which does not read them. Nothing is installed when set-up
asks: this needs the standard library alone."""

import ast
import os
import subprocess

OPTIONS = {name: f"--{name}" for name in ("index-url", "extra-index-url", "find-links")}
OPTIONS["trusted-host"] = "--allow-insecure-host"
VARIABLES = {"cert": "SSL_CERT_FILE", "proxy": "ALL_PROXY", "timeout": "UV_HTTP_TIMEOUT"}
VARIABLES["default-timeout"] = VARIABLES["timeout"]


def settings(python: str) -> "tuple[list[str], dict[str, str]]":
    """The options of a uv command, and its environment, by what the pip of `python` is set to:
    in its files and in its own variables."""
    command = [python, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True).stdout
    values = {}
    for section in ("global.", "install.", ":env:."):  # the last one wins, as in pip
        for line in listed.splitlines():
            if line.startswith(section) and "=" in line:
                name, _, value = line[len(section) :].partition("=")
                values[name] = str(ast.literal_eval(value))
    options = []
    for name, option in OPTIONS.items():
        for value in values.get(name, "").split():
            options += [option, value]
    if values.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        options.append("--no-index")
    options += ["--index-strategy", "unsafe-best-match"]  # all indexes are equal, as in pip
    variables = {VARIABLES[name]: values[name] for name in VARIABLES if name in values}
    return options, {"UV_SYSTEM_CERTS": "true", **variables, **os.environ}
