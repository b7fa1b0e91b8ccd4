"""The decision driver and one file or folder per controller, named as in kube-controller-manager.

A controller is a synchronous generator of effects over a read-only view; only the driver does I/O.
No controller imports another.
"""
