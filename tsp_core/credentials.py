"""Finds credentials in URIs, which belong into the environment.

A URI of the configuration or of a list of videos is kept in artifacts, in the parameters of Prefect
runs and in logs, so one that carries a password or a signature is refused.
"""

from __future__ import annotations

import re

_PASSWORD = re.compile(r"://[^/@\s:]*:[^/@\s]*@|^https?://[^/@\s]+@", re.IGNORECASE)
_SIGNATURE = re.compile(
    r"[?&](x-amz-(signature|credential|security-token)|x-goog-(signature|credential)"
    r"|awsaccesskeyid|signature|sig|token|access_token|auth|api_?key|key|secret|password)=",
    re.IGNORECASE,
)

FIX = (
    "URIs are kept in artifacts and logs; give it without, and set credentials in the environment "
    "of the process that works (AWS_ACCESS_KEY_ID, ...)"
)


def embedded_credentials(text: str) -> str | None:
    """Say which kind of credential a URI carries; None where there is none."""
    if "://" not in text:
        return None
    if _PASSWORD.search(text):
        return "a password"
    if _SIGNATURE.search(text):
        return "a signature or token"
    return None
