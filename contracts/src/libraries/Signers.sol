// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IDisputeCourt} from "../interfaces/IDisputeCourt.sol";
import {INodeRegistry} from "../interfaces/INodeRegistry.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

/// @title Whose word a signature is
library Signers {
    /// @dev Whether `signature` is the operator's word: by itself, by its signer, or by one that was that until lately. A key that
    /// was changed long ago may have been stolen since, and must not be able to frame its former owner.
    /// @param evidencePeriod Seconds for which a retired signer's words still count.
    function check(
        INodeRegistry nodes,
        uint48 evidencePeriod,
        address operator,
        bytes32 digest,
        bytes calldata signature
    ) internal view {
        (address signer,,) = ECDSA.tryRecover(digest, signature);
        if (signer == operator && signer != address(0)) return;
        (address owner, uint48 retiredAt) = nodes.signerRecord(signer);
        bool counts = retiredAt == 0 || block.timestamp <= uint256(retiredAt) + evidencePeriod;
        // An unknown signer has no owner, and who has none speaks for nobody.
        if (signer == address(0) || owner == address(0) || owner != operator || !counts) {
            revert IDisputeCourt.DisputeCourtNotSignedBy(operator, signer);
        }
    }
}
