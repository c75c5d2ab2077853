"""Keeps TensorFlow's server off the addresses that it was not given.

The server runs whatever it is sent, for anyone who can reach its port, and it always listens on every address of the
machine: two tasks on 127.0.0.1 would be open to the whole network. This needs no firewall and no root, but it knows
only IPv4 addresses; where TF_CONFIG has host names, a private network or a firewall has to do it (README.md).
"""

import contextlib
import ctypes
import ipaddress
import os
import socket
import struct

SO_ATTACH_FILTER = 26  # Linux
LISTENING = "0A"  # in /proc/net/tcp


def listen_only_at(address):
    """Makes the kernel drop packets for a listening port of this process that arrive at another of its addresses.

    address: "host:port". Nothing happens if the host is a name, or the system is not Linux.
    """
    host, _, port = address.rpartition(":")
    try:
        wanted = int(ipaddress.IPv4Address(host))
    except ValueError:
        return
    # A classic BPF program: load the destination address of the IP header; if it is ours keep the packet, else drop it.
    steps = (0x20, 0, 0, 0xFFF00010), (0x15, 0, 1, wanted), (6, 0, 0, 0xFFFFFFFF), (6, 0, 0, 0)
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code))
    for number in _descriptors(int(port)):
        with socket.socket(fileno=os.dup(number)) as server:
            server.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


def _descriptors(port):
    """The file descriptors of this process that listen on a port: list of int."""
    inodes, found = set(), []
    for table in "tcp", "tcp6":
        with contextlib.suppress(FileNotFoundError), open(f"/proc/self/net/{table}") as lines:
            for fields in [line.split() for line in lines][1:]:
                if fields[3] == LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                    inodes.add(f"socket:[{fields[9]}]")
    for number in os.listdir("/proc/self/fd") if inodes else ():
        with contextlib.suppress(OSError):  # closed since
            if os.readlink(f"/proc/self/fd/{number}") in inodes:
                found.append(int(number))
    return found
