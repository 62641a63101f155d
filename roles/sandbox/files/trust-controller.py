"""Makes this host trust what the controller trusts, in the way that survives update-ca-certificates.

Each certificate of the given bundle that the host does not know yet becomes a file of its own, since
the tools of the ca-certificates package expect one certificate per file.
"""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

KNOWN = pathlib.Path("/etc/ssl/certs/ca-certificates.crt")
ADDED = pathlib.Path("/usr/local/share/ca-certificates")


def certificates(bundle: pathlib.Path) -> list[str]:
    text = bundle.read_text(errors="replace")
    return re.findall(r"-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----\n", text)


wanted = certificates(pathlib.Path(sys.argv[1]))
subprocess.run(["update-ca-certificates", "--fresh"], check=True)
unknown = [certificate for certificate in wanted if certificate not in certificates(KNOWN)]
for number, certificate in enumerate(unknown):
    (ADDED / f"controller-{number}.crt").write_text(certificate)
subprocess.run(["update-ca-certificates"], check=True)
