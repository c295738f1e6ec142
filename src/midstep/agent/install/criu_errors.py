"""What can go wrong between wanting CRIU and having it.

CriuInstallError
|-- NoNetwork      the mirror does not answer: try again, or set apt's proxy
|-- NotTrusted     a signature or a checksum is wrong: do not use the mirror; do not retry blindly
|-- NoRelease      the mirror has no release with a CRIU that is new enough
|-- NoRights       not root, or the prefix cannot be written
|-- NotHere        not Debian or Ubuntu, no apt sources, or a program is missing: install by other means
`-- DoesNotRun     unpacked, but `criu check` or `criu --version` fails: its words are in the message
"""

from __future__ import annotations


class CriuInstallError(Exception):
    """CRIU was not installed; what was there before is untouched."""


class NoNetwork(CriuInstallError): ...


class NotTrusted(CriuInstallError): ...


class NoRelease(CriuInstallError): ...


class NoRights(CriuInstallError): ...


class NotHere(CriuInstallError): ...


class DoesNotRun(CriuInstallError): ...
