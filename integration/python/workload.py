"""Asks the SPIFFE Workload API as an application does that knows nothing of Heddle, and prints what it was told."""

import json
import sys

from spiffe import WorkloadApiClient

with WorkloadApiClient(socket_path=f"unix://{sys.argv[1]}") as client:
    svid = client.fetch_x509_svid()
    bundles = client.fetch_x509_bundles()
    domain = svid.spiffe_id.trust_domain
    print(json.dumps({
        "id": str(svid.spiffe_id),
        "chain": len(svid.cert_chain),
        "roots": len(bundles.get_bundle_for_trust_domain(domain).x509_authorities),
    }))
