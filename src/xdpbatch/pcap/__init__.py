"""Captures, in and out: pcap and pcapng. Nothing here knows what a program is."""
