"""Settings from flags, the environment and a file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from scheduler.admission.tenant import Budget
from scheduler.commands.serve import serve as serve_command
from scheduler.gateway.config import config_of, configured, load
from scheduler.gateway.keys import digest_of
from scheduler.gateway.mint import show_new_key

FILE = """
listen = "127.0.0.1:9000"
max-body = 1000
compress = false
tls_cert = "cert.pem"
label = ["a", "b"]

[[keys]]
name = "batch"
digest = "%s"
weight = 2

[budgets."gpt-6"]
tokens_per_minute = 5000

[pool]
max_connections = 4
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "gateway.toml"
    path.write_text(FILE % digest_of("wl-secret"))
    return path


def invoke(*args: object, env: dict[str, str] | None = None) -> tuple[Result, dict[str, Any]]:
    got: dict[str, Any] = {}

    @click.command(context_settings={"auto_envvar_prefix": "WARMLINE_SERVE"})
    @click.option("--listen", default="127.0.0.1:8080")
    @click.option("--max-body", type=int, default=10)
    @click.option("--compress/--no-compress", default=True)
    @click.option("--tls-cert", type=click.Path(path_type=Path))
    @click.option("--label", multiple=True)
    @click.option("--new-key", metavar="NAME", is_eager=True, expose_value=False, callback=show_new_key)
    @configured
    @click.pass_context
    def serve(context: click.Context, /, **options: Any) -> None:
        got.update(options, config=config_of(context))

    return CliRunner().invoke(serve, [str(arg) for arg in args], env=env or {}), got


def refused(text: str, tmp_path: Path) -> str:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    result, _ = invoke("--config", path)
    assert result.exit_code == 2
    assert result.exc_info is None or result.exc_info[0] is SystemExit
    return " ".join(result.output.split())


def test_the_file_is_used(file: Path) -> None:
    result, got = invoke("--config", file)
    assert result.exit_code == 0, result.output
    config = got.pop("config")
    assert got == {
        "listen": "127.0.0.1:9000",
        "max_body": 1000,
        "compress": False,
        "tls_cert": file.parent / "cert.pem",
        "label": ("a", "b"),
    }
    (key,) = config.tables.keys
    assert (key.name, key.tenant, key.weight) == ("batch", "batch", 2)
    assert config.tables.budgets == {"gpt-6": Budget(tokens_per_minute=5000)}
    assert config.tables.pool == {"max_connections": 4}


def test_flags_go_before_the_environment_and_that_before_the_file(file: Path) -> None:
    env = {"WARMLINE_SERVE_LISTEN": "127.0.0.1:7000", "WARMLINE_SERVE_MAX_BODY": "7"}
    _, got = invoke("--config", file, "--max-body", 5, env=env)
    assert (got["listen"], got["max_body"], got["compress"]) == ("127.0.0.1:7000", 5, False)
    _, got = invoke(env={"WARMLINE_SERVE_CONFIG": str(file)})
    assert got["listen"] == "127.0.0.1:9000"


def test_what_is_shown_can_be_read_again_and_says_where_it_is_from(file: Path) -> None:
    result, got = invoke(
        "--config", file, "--max-body", 5, "--show-config", env={"WARMLINE_SERVE_LISTEN": "h:1"}
    )
    assert result.exit_code == 0
    assert got == {}
    said = tomllib.loads(result.output)
    assert said["max_body"] == 5
    assert said["keys"] == [
        {
            "name": "batch",
            "digest": digest_of("wl-secret"),
            "tenant": "batch",
            "weight": 2,
            "priority": 0,
            "endpoints": ["responses", "models"],
            "resources": [],
        }
    ]
    assert (said["budgets"], said["pool"]) == ({"gpt-6": {"tokens_per_minute": 5000}}, {"max_connections": 4})
    sources = {line.split(" = ")[0]: line.rpartition("# ")[2] for line in result.output.splitlines()}
    assert sources["listen"] == "WARMLINE_SERVE_LISTEN"
    assert sources["max_body"] == "--max-body"
    assert sources["compress"] == str(file)
    result, _ = invoke("--show-config")
    assert "# tls_cert is not set\n" in result.output
    assert result.output.splitlines()[0].endswith("# default")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lisen = 1", "did you mean 'listen'?"),
        ("colour = 1", "--show-config"),
        ("config = 'x'", "no such setting"),
        ("max_body = 1.5", "not a valid integer"),
        ("max_body = true", "must be one value"),
        ("listen = [1]", "must be one value"),
        ("compress = 'no'", "must be true or false"),
        ("listen", "is no TOML"),
        ("keys = 3", "must be tables: [[keys]]"),
        ("[[keys]]\nname = 'a'", "keys.digest"),
        ("[[keys]]\nname = 'a'\ndigest = 'wl-oh'", "64 hexadecimal digits"),
        ("[[keys]]\nnmae = 'a'", "did you mean 'keys.name'?"),
        ("budgets = 3", "[budgets]"),
        ("[budgets]\ngpt = 3", '[budgets."gpt"]'),
        ("[budgets.gpt]\nrequests = 3", "requests_per_minute"),
        ("[pool]\nmax_connection = 3", "did you mean 'pool.max_connections'?"),
        ("[pool]\nmax_connections = 0", "must be a whole number of at least 1"),
        ("[scheduler]\ntenants = []", "no such setting"),
        ("[gateway]\ngrace = 5", "no such setting"),
        ("[gateway]\nkeep_alive = -1", "must be a number above 0"),
    ],
)
def test_what_cannot_be_used_is_refused_with_a_remedy(text: str, said: str, tmp_path: Path) -> None:
    output = refused(text, tmp_path)
    assert said in output
    assert "wl-oh" not in output


def test_what_may_hold_a_token_is_not_shown_but_to_be_filled_in() -> None:
    for said, shown in (
        ("http://user:secret@h/v1", "# listen is set (--listen), and may be secret: fill it in"),
        (
            "http://h/v1?key=secret",
            "# listen is set (--listen) to http://h/v1 and more, which may be secret: fill it in",
        ),
        ("http://h/v1", 'listen = "http://h/v1"'),
    ):
        result, _ = invoke("--listen", said, "--show-config")
        assert result.output.startswith(shown)
        assert "secret@" not in result.output
        assert "key=" not in result.output


EVERYTHING = """
listen = "127.0.0.1:0"
client_keys = "virtual"
grace = inf
tls_cert = "certs/cert.pem"
spool = "transcripts"
admin_token = "token-7"
takeover = true

[[keys]]
name = "batch"
digest = "%s"
max_in_flight = 3

[[keys]]
name = "people"
digest = "%s"
tenant = "all of \\"them\\""
priority = -1.5

[budgets."gpt-6.astra"]
tokens_per_minute = 5000

[pool]
max_connections = 4
reserve = 7.5

[gateway]
keep_alive = 5
"""


def test_what_serve_shows_is_what_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also from another folder; but for what is secret, which it says."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "other").mkdir()
    file, other = tmp_path / "etc" / "serve.toml", tmp_path / "other" / "serve.toml"
    file.write_text(EVERYTHING % (digest_of("wl-1"), digest_of("wl-2")))
    monkeypatch.chdir(tmp_path)
    options = ["--config", "etc/serve.toml", "--tls-key", "key.pem", "--memory", "64", "--show-config"]
    first = CliRunner().invoke(serve_command, options, auto_envvar_prefix="WARMLINE_SERVE")
    assert first.exit_code == 0, first.output
    assert "# admin_token is set (etc/serve.toml), and may be secret: fill it in\n" in first.output
    assert "token-7" not in first.output
    other.write_text(f'admin_token = "token-7"\n{first.output}')
    second = CliRunner().invoke(
        serve_command, ["--config", str(other), "--show-config"], auto_envvar_prefix="WARMLINE_SERVE"
    )
    assert second.exit_code == 0, second.output
    once, twice = tomllib.loads(first.output), tomllib.loads(second.output)
    assert once == twice
    before, after = load(file, serve_command.params), load(other, serve_command.params)
    assert after.tables == before.tables
    assert once["tls_key"] == str(tmp_path / "key.pem")
    assert once["spool"] == str(tmp_path / "etc" / "transcripts")
    assert once["grace"] == float("inf")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    result, _ = invoke("--config", tmp_path / "none.toml")
    assert (result.exit_code, "No such file" in result.output) == (2, True)


def test_a_variable_that_nobody_reads() -> None:
    result, _ = invoke("--show-config", "--config", "/dev/null", env={"WARMLINE_SERVE_LISTN": "x"})
    assert result.exit_code == 2
    assert "did you mean 'WARMLINE_SERVE_LISTEN'?" in result.output


def test_a_new_key_is_shown_once_and_is_what_its_table_says() -> None:
    result, got = invoke("--new-key", "batch")
    assert (result.exit_code, got) == (0, {})
    key = result.stdout.strip()
    assert key.startswith("wl-")
    assert len(key) > 40
    assert tomllib.loads(result.stderr)["keys"] == [{"name": "batch", "digest": digest_of(key)}]
    assert invoke("--new-key", "batch")[0].stdout != result.stdout
    assert invoke("--new-key", "")[0].exit_code == 2
