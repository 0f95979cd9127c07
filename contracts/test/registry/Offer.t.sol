// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {INodeRegistry} from "../../src/interfaces/INodeRegistry.sol";
import {Base} from "../helpers/Base.sol";

contract OfferTest is Base {
    bytes32 internal constant MODEL = keccak256("tiny");

    function setUp() public override {
        super.setUp();
        _registerWorker();
    }

    function test_SetOffer(uint16 first, uint16 end, uint8 profile, uint128 promptPrice, uint128 outputPrice) public {
        if (first >= end) {
            vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NodeRegistryInvalidLayers.selector, first, end));
        } else {
            vm.expectEmit();
            emit INodeRegistry.OfferSet(worker, MODEL, first, end, profile, promptPrice, outputPrice);
        }
        vm.prank(worker);
        nodes.setOffer(MODEL, first, end, profile, promptPrice, outputPrice);
        if (first >= end) return;
        INodeRegistry.Offer memory offer = nodes.offer(worker, MODEL, profile);
        vm.assertEq(offer.firstLayer, first);
        vm.assertEq(offer.endLayer, end);
        vm.assertEq(offer.numericProfile, profile);
        vm.assertEq(offer.term, 1);
        vm.assertEq(offer.promptPrice, promptPrice);
        vm.assertEq(offer.outputPrice, outputPrice);
    }

    function test_TheNewestOfferOfAProfileCounts() public {
        vm.startPrank(worker);
        nodes.setOffer(MODEL, 0, 4, 0, 1, 2);
        nodes.setOffer(MODEL, 4, 8, 0, 3, 4);
        nodes.setOffer(MODEL, 2, 3, 1, 5, 6);
        vm.stopPrank();
        vm.assertEq(nodes.offer(worker, MODEL, 0).firstLayer, 4);
        vm.assertEq(nodes.offer(worker, MODEL, 1).firstLayer, 2);
        vm.assertEq(nodes.offer(worker, keccak256("other"), 0).endLayer, 0);
    }

    function test_RemoveOffer() public {
        vm.startPrank(worker);
        nodes.setOffer(MODEL, 0, 4, 0, 1, 2);
        vm.expectEmit();
        emit INodeRegistry.OfferRemoved(worker, MODEL, 0);
        nodes.removeOffer(MODEL, 0);
        vm.assertEq(nodes.offer(worker, MODEL, 0).endLayer, 0);
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NodeRegistryNoOffer.selector, worker, MODEL, 0));
        nodes.removeOffer(MODEL, 0);
        vm.stopPrank();
    }

    function test_OffersRestWhileTheNodeIsNoWorker() public {
        vm.startPrank(worker);
        nodes.setOffer(MODEL, 0, 4, 0, 1, 2);
        nodes.addStake(MIN_GATEWAY);
        nodes.setRoles(GATEWAY);
        vm.assertEq(nodes.offer(worker, MODEL, 0).endLayer, 0);
        nodes.setRoles(WORKER);
        vm.assertEq(nodes.offer(worker, MODEL, 0).endLayer, 4);
        vm.stopPrank();
    }

    function test_RevertWhen_NotAWorker() public {
        _registerGateway();
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NodeRegistryNotWorker.selector, gateway));
        vm.prank(gateway);
        nodes.setOffer(MODEL, 0, 4, 0, 1, 2);
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NodeRegistryNotWorker.selector, stranger));
        vm.prank(stranger);
        nodes.setOffer(MODEL, 0, 4, 0, 1, 2);
    }

    function test_RevertWhen_TheSignerOffers() public {
        vm.expectRevert(abi.encodeWithSelector(INodeRegistry.NodeRegistryNotWorker.selector, workerSigner));
        vm.prank(workerSigner);
        nodes.setOffer(MODEL, 0, 4, 0, 1, 2);
    }
}
