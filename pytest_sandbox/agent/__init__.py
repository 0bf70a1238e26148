"""The half that runs in the sandbox: unpacks trees, supervises pytest, streams frames.

Shipped as one file (see ``shipment``) and run by the target's interpreter: Python 3.8 and later,
standard library and pytest only, nothing else of this project. docs/agent-protocol.md is its
contract.
"""
