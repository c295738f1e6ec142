"""A port on loopback goes on, connections are cut as by a fault, unix sockets among ourselves live."""

import os
import socket

from pause import pause

server = socket.create_server(("127.0.0.1", 18080))
client = socket.create_connection(("127.0.0.1", 18080))
peer, _ = server.accept()
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("127.0.0.1", 18081))
six = socket.create_server(("::1", 18082), family=socket.AF_INET6)
unix = socket.socket(socket.AF_UNIX)
unix.bind("listen.sock")
unix.listen()
inside = socket.socket(socket.AF_UNIX)
inside.connect("listen.sock")
other, _ = unix.accept()
inside.send(b"half way")
pause()
client.settimeout(0.2)
try:
    client.send(b"x")
    assert client.recv(1) == b""
except OSError:
    pass  # a timeout where nothing was cut
again = socket.create_connection(("127.0.0.1", 18080))
peer, _ = server.accept()
again.send(b"hello")
print(peer.recv(5))
udp.sendto(b"udp", ("127.0.0.1", 18081))
print(udp.recv(10))
print(other.recv(20))
more = socket.socket(socket.AF_UNIX)
more.connect("listen.sock")
print("unix", unix.accept()[0].fileno() > 0)
os.unlink("listen.sock")
