"""A contributor's desk: the `declai` program in this process, on a chain of the test's own, with wallets by name."""

from __future__ import annotations

import contextlib
import io
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eth_account.signers.local import LocalAccount

from declai.chain import keystore
from declai.chain.client import Chain
from declai.chain.contracts.ledger import Claim, Fault, Payout
from declai.chain.contracts.nodes import Role
from declai.chain.messages import InferenceReceipt, InferenceRequest, new_account, sign
from declai.cli import main
from declai.devnet.chain_setup import fund
from declai.network import ChainInfo, GatewayInfo, Network, WalletInfo, write
from tests.support.world import World

PASSWORD = "correct horse battery staple"  # looked for in all that the program prints
DAY_S = 86_400


@dataclass(frozen=True)
class Done:
    """What a command printed, and how it ended."""

    code: int
    out: str
    err: str


@dataclass
class Desk:
    """Runs commands as a contributor does; no password and no key may ever be printed."""

    world: World
    home: Path
    secrets: list[str] = field(default_factory=lambda: [PASSWORD])

    def __post_init__(self) -> None:
        password_file = self.home / "password"
        self.home.mkdir(parents=True, exist_ok=True)
        password_file.touch(mode=0o600)
        password_file.write_text(PASSWORD)
        deployment = self.chain.deployment
        self.network = Network(
            chain=ChainInfo(rpc_url=self.chain.rpc_url, chain_id=deployment.chain_id, block=deployment.block),
            contracts={str(name): address for name, address in deployment.contracts.items()},
            gateway=GatewayInfo(url="http://127.0.0.1:9"),
        )
        write(self.network, self.network_file)

    @property
    def chain(self) -> Chain:
        return self.world.chain

    @property
    def network_file(self) -> Path:
        return self.home / "network.json"

    @property
    def env(self) -> dict[str, str]:
        """The environment of a contributor, who has one wallet's password in a file."""
        return {**os.environ, "DECLAI_HOME": str(self.home), "DECLAI_NETWORK": str(self.network_file)}

    def keep(self, name: str, account: LocalAccount) -> LocalAccount:
        """Make an account a wallet of the network file."""
        path = self.home / "keystores" / f"{name}.json"
        keystore.save(account, path, PASSWORD, keystore.SCRYPT_LIGHT)
        self.secrets.append(bytes(account.key).hex())
        self.network.wallets[name] = WalletInfo(
            address=account.address, keystore=str(path), password_file=str(self.home / "password")
        )
        write(self.network, self.network_file)
        return account

    def run(self, *arguments: str) -> Done:
        """A command from its arguments to its exit code."""
        out, err, before = io.StringIO(), io.StringIO(), dict(os.environ)
        os.environ.update(self.env)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                main(arguments)
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        finally:
            os.environ.clear()
            os.environ.update(before)
        done = Done(code, out.getvalue(), err.getvalue())
        assert not [secret for secret in self.secrets if secret in done.out + done.err]
        return done

    def ok(self, *arguments: str) -> str:
        """Standard output of a command that must succeed."""
        done = self.run(*arguments)
        assert done.code == 0, f"declai {' '.join(arguments)}\n{done.out}\n{done.err}"
        return done.out

    def json(self, *arguments: str) -> Any:
        return json.loads(self.ok(*arguments, "--json"))

    def fails(self, *arguments: str, code: int = 1) -> str:
        """Standard error of a command that must fail with this exit code, in one line and without a traceback."""
        done = self.run(*arguments)
        assert done.code == code, f"declai {' '.join(arguments)}\n{done.out}\n{done.err}"
        assert "Traceback" not in done.err
        return done.err

    def settle(self, node: str, earned: int, fault: int = 0) -> str:
        """Have a gateway of its own settle what a node earned, and note what it failed; returns the gateway."""
        world, signer, key = self.world, new_account(), new_account()
        fund(self.chain, [signer.address])
        gateway, payer = world.register(Role.GATEWAY, signer), world.rich()
        world.deposit(payer, earned)
        request = InferenceRequest(
            session=world.open_session(payer, gateway, key, earned),
            nonce=1,
            model=bytes(32),
            body=bytes(32),
            max_tokens=1,
            tier=0,
            max_cost=earned,
            acked_below=1,
            spent=0,
            deadline=self.chain.timestamp() + DAY_S,
        )
        claim = Claim(request, sign(request, self.chain.domain, key), earned)
        faults = [Fault(node, fault)] if fault else []
        world.send(
            signer,
            self.chain.ledger.settle(gateway.address, [claim], [Payout(node, earned)], bytes(32), 0, faults),
        )
        return str(gateway.address)

    def pass_time(self, seconds: int) -> None:
        """Move the chain's clock."""
        for method, parameters in (("evm_increaseTime", [hex(seconds)]), ("evm_mine", [])):
            self.chain.w3.provider.make_request(method, parameters)  # type: ignore[arg-type]


def equivocate(desk: Desk, node: str, signer: LocalAccount) -> None:
    """Two receipts for one assignment, shown to the court."""

    def receipt(cost: int) -> InferenceReceipt:
        now = desk.chain.timestamp()
        counts = {"prompt_tokens": 1, "output_tokens": 1, "cost": cost, "started_at": now, "finished_at": now}
        return InferenceReceipt(assignment=b"a" * 32, node=node, inputs=bytes(32), outputs=bytes(32), **counts)

    pair = [part for r in (receipt(1), receipt(2)) for part in (r, sign(r, desk.chain.domain, signer))]
    desk.world.send(desk.world.rich(), desk.chain.court.prove_equivocation(*pair))
