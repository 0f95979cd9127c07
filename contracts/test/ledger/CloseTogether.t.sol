// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IInferenceLedger} from "../../src/interfaces/IInferenceLedger.sol";
import {SessionClose} from "../../src/libraries/Messages.sol";
import {Base} from "../helpers/Base.sol";
import {Wallet} from "../helpers/Mocks.sol";

contract CloseTogetherTest is Base {
    uint96 internal constant BUDGET = 50e18;
    uint96 internal constant SETTLED = 3e18;
    bytes32 internal id;

    function setUp() public override {
        super.setUp();
        _registerGateway();
        id = _open(BUDGET);
        _settle(_one(_claim(id, 0, SETTLED, 0, 0)), _one(_payout(worker, SETTLED)));
    }

    function test_AnyoneBringsBothSignatures() public {
        SessionClose memory consent = _consent();
        bytes memory byPayer = _signed(PAYER_KEY, consent);
        bytes memory byGateway = _signed(GATEWAY_SIGNER_KEY, consent);
        vm.expectEmit();
        emit IInferenceLedger.SessionClosed(id, payer, BUDGET - SETTLED, SETTLED);
        vm.prank(stranger);
        ledger.closeTogether(_terms(consent.session), consent, byPayer, byGateway);
        vm.assertEq(ledger.balanceOf(payer), BUDGET - SETTLED);
        vm.assertEq(_session(id).budget, 0);
        vm.assertEq(_session(id).settled, 0);
    }

    function test_ThePayerBringsTheGatewaysBeforeItExpires() public {
        SessionClose memory consent = _consent();
        consent.deadline += 1;
        bytes memory byGateway = _signed(GATEWAY_SIGNER_KEY, consent);
        vm.prank(payer);
        ledger.closeTogether(_terms(consent.session), consent, "", byGateway);
        vm.assertEq(ledger.balanceOf(payer), BUDGET - SETTLED);
    }

    function test_OperatorOrSignerBringsThePayers() public {
        bytes memory byPayer = _signed(PAYER_KEY, _consent());
        vm.prank(gatewaySigner);
        ledger.closeTogether(_terms(_consent().session), _consent(), byPayer, "");

        id = _open(BUDGET);
        SessionClose memory consent = SessionClose(id, 0, uint64(block.timestamp));
        byPayer = _signed(PAYER_KEY, consent);
        vm.prank(gateway);
        ledger.closeTogether(_terms(consent.session), consent, byPayer, "");
        vm.assertEq(ledger.balanceOf(payer), 2 * uint256(BUDGET) - SETTLED);
    }

    function test_RevertWhen_TheConsentIsToAnotherSession() public {
        SessionClose memory consent = _consent();
        IInferenceLedger.SessionTerms memory terms = _terms(consent.session);
        consent.session = bytes32(uint256(consent.session) + 1);
        bytes memory byPayer = _signed(PAYER_KEY, consent);
        bytes memory byGateway = _signed(GATEWAY_SIGNER_KEY, consent);
        vm.expectRevert(abi.encodeWithSelector(IInferenceLedger.InferenceLedgerUnrelated.selector, id, consent.session));
        ledger.closeTogether(terms, consent, byPayer, byGateway);
    }

    function test_AGatewayThatLeftMayStillConsent() public {
        bytes memory byPayer = _signed(PAYER_KEY, _consent());
        vm.startPrank(gateway);
        nodes.deregister();
        ledger.closeTogether(_terms(_consent().session), _consent(), byPayer, "");
        vm.stopPrank();
        vm.assertEq(ledger.balanceOf(payer), BUDGET - SETTLED);
    }

    function test_AContractWalletConsentsByErc1271() public {
        Wallet wallet = new Wallet(payer);
        vm.prank(payer);
        token.transfer(address(wallet), BUDGET);
        vm.startPrank(payer);
        wallet.run(address(token), abi.encodeCall(token.approve, (address(ledger), BUDGET)));
        wallet.run(address(ledger), abi.encodeCall(ledger.deposit, (BUDGET)));
        bytes memory opened =
            wallet.run(address(ledger), abi.encodeCall(ledger.openSession, (gateway, sessionKey, BUDGET, HOUR)));
        vm.stopPrank();
        SessionClose memory consent = SessionClose(abi.decode(opened, (bytes32)), 0, uint64(block.timestamp));
        bytes memory byStranger = _signed(STRANGER_KEY, consent);
        bytes memory byOwner = _signed(PAYER_KEY, consent);
        vm.startPrank(gateway);
        vm.expectRevert(
            abi.encodeWithSelector(IInferenceLedger.InferenceLedgerNoConsent.selector, consent.session, address(wallet))
        );
        ledger.closeTogether(_terms(consent.session), consent, byStranger, "");
        ledger.closeTogether(_terms(consent.session), consent, byOwner, "");
        vm.stopPrank();
        vm.assertEq(ledger.balanceOf(address(wallet)), BUDGET);
    }

    function test_AGatewayThatIsAContractConsentsByErc1271() public {
        vm.etch(gateway, address(new Wallet(stranger)).code);
        bytes memory byPayer = _signed(PAYER_KEY, _consent());
        bytes memory byOwner = _signed(STRANGER_KEY, _consent());
        vm.prank(stranger);
        ledger.closeTogether(_terms(_consent().session), _consent(), byPayer, byOwner);
        vm.assertEq(ledger.balanceOf(payer), BUDGET - SETTLED);
    }

    function test_RevertWhen_OneSideDoesNotConsent() public {
        bytes memory byPayer = _signed(PAYER_KEY, _consent());
        bytes memory byGateway = _signed(GATEWAY_SIGNER_KEY, _consent());
        bytes memory byStranger = _signed(STRANGER_KEY, _consent());
        bytes4 selector = IInferenceLedger.InferenceLedgerNoConsent.selector;
        vm.startPrank(stranger);
        vm.expectRevert(abi.encodeWithSelector(selector, id, payer));
        ledger.closeTogether(_terms(_consent().session), _consent(), byStranger, byGateway);
        vm.expectRevert(abi.encodeWithSelector(selector, id, gateway));
        ledger.closeTogether(_terms(_consent().session), _consent(), byPayer, byStranger);
        vm.expectRevert(abi.encodeWithSelector(selector, id, gateway));
        ledger.closeTogether(_terms(_consent().session), _consent(), byPayer, hex"1234");
        vm.expectRevert(abi.encodeWithSelector(selector, id, payer));
        ledger.closeTogether(_terms(_consent().session), _consent(), "", byGateway);
        vm.stopPrank();
    }

    function test_RevertWhen_TheSignerIsRetired() public {
        bytes memory byGateway = _signed(GATEWAY_SIGNER_KEY, _consent());
        vm.prank(gateway);
        nodes.setSigner(stranger);
        vm.expectRevert(abi.encodeWithSelector(IInferenceLedger.InferenceLedgerNoConsent.selector, id, gateway));
        vm.prank(payer);
        ledger.closeTogether(_terms(_consent().session), _consent(), "", byGateway);
    }

    function test_RevertWhen_ConsentedToAnotherTotal() public {
        SessionClose memory consent = _consent();
        bytes4 selector = IInferenceLedger.InferenceLedgerConsentToOtherTotal.selector;
        consent.settled = SETTLED - 1;
        vm.expectRevert(abi.encodeWithSelector(selector, id, SETTLED, SETTLED - 1));
        ledger.closeTogether(_terms(consent.session), consent, "", "");
        consent.settled = SETTLED + 1;
        vm.expectRevert(abi.encodeWithSelector(selector, id, SETTLED, SETTLED + 1));
        ledger.closeTogether(_terms(consent.session), consent, "", "");
    }

    function test_RevertWhen_ConsentIsExpired() public {
        SessionClose memory consent = _consent();
        vm.warp(block.timestamp + 1);
        vm.expectRevert(
            abi.encodeWithSelector(IInferenceLedger.InferenceLedgerConsentExpired.selector, id, consent.deadline)
        );
        ledger.closeTogether(_terms(consent.session), consent, "", "");
    }

    function test_RevertWhen_UsedAgain() public {
        bytes memory byPayer = _signed(PAYER_KEY, _consent());
        vm.startPrank(gateway);
        ledger.closeTogether(_terms(_consent().session), _consent(), byPayer, "");
        vm.expectRevert(abi.encodeWithSelector(IInferenceLedger.InferenceLedgerUnknownSession.selector, id));
        ledger.closeTogether(_terms(_consent().session), _consent(), byPayer, "");
        vm.stopPrank();
    }

    function _consent() internal view returns (SessionClose memory) {
        return SessionClose(id, SETTLED, uint64(block.timestamp));
    }

    function _signed(uint256 privateKey, SessionClose memory consent) internal view returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(privateKey, ledger.hashSessionClose(consent));
        return abi.encodePacked(r, s, v);
    }
}
