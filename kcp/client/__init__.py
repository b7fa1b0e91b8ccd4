"""How every component reads and writes: transports, client, informers, work queues, leader election, recorder.

Never reaches into kcp.api or kcp.store; the same classes run in-process and over HTTPS.
"""
