"""How fast the stages' models run on this device, at full size and with random weights: nothing is downloaded.

Random weights take the time of trained ones, as long as activations are finite and not zero.
"""
