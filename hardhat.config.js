// Hardhat compiles the contracts with the settings of foundry.toml, and `npx hardhat node` is the second local chain.
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { defineConfig } from "hardhat/config";
import { parse } from "smol-toml";

const foundry = parse(readFileSync(new URL("./foundry.toml", import.meta.url), "utf8")).profile.default;
const compiler = JSON.parse(readFileSync(new URL("./node_modules/solc/package.json", import.meta.url), "utf8"));

export default defineConfig({
  paths: {
    sources: `./${foundry.src}`,
    artifacts: "./build/hardhat/artifacts",
    cache: "./build/hardhat/cache",
  },
  solidity: {
    version: compiler.version,
    path: fileURLToPath(import.meta.resolve("solc/soljson.js")),
    settings: {
      evmVersion: foundry.evm_version,
      optimizer: { enabled: foundry.optimizer, runs: foundry.optimizer_runs },
      viaIR: foundry.via_ir,
      metadata: { bytecodeHash: foundry.bytecode_hash },
    },
  },
});
