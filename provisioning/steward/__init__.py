"""The steward: the root-owned program on a node that the appliance's key is bound to.

Standard library only, Python 3.10 or newer. It is shipped as one file (`provisioning/bundle.py`
builds it) and reads one request from its standard input; what it may do is in `requests.py`.
"""
