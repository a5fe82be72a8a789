"""The official Node.js SDK through the gateway, unmodified, over HTTP, while things break upstream."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pool.emulator import context_digest
from pool.wire.codec import from_json, to_json
from tests.e2e.behind import FAULTS, KEY, behind_gateway
from tests.support.node import node, npm_install

SDK = "openai@7.57.0"
CONVERSATIONS, TURNS = 50, 4


@pytest.mark.parametrize("faults", ["", FAULTS], ids=["calm", "storm"])
def test_fifty_at_once(faults: str, tmp_path: Path) -> None:
    modules = npm_install(SDK)
    (tmp_path / "node_modules").symlink_to(modules)
    script = shutil.copy(Path(__file__).with_name("gateway_client.mjs"), tmp_path)
    with behind_gateway(faults) as behind:
        asked = {"url": behind.url, "key": KEY, "conversations": CONVERSATIONS, "turns": TURNS}
        done = subprocess.run(
            [node(), str(script), to_json(asked).decode()], capture_output=True, timeout=120, check=False
        )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    conversations = from_json(done.stdout)
    assert [len(seen) for seen in conversations] == [TURNS] * CONVERSATIONS
    for seen in conversations:
        for turn in seen:
            assert turn["context"] == context_digest(turn["items"])
    if not faults:
        behind.assert_conversations_go_on(CONVERSATIONS, TURNS)
