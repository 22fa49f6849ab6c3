"""The API, group `metal.rackwright.io`: pydantic models that are the only source of the CRDs.

Everything a user can write or read is defined here once: names, defaults, limits, the sentences that
`kubectl apply` answers nonsense with (CEL rules beside the field they guard), and the documentation that
`kubectl explain` prints. `hack/generate` turns the models into `crds/`.
"""

GROUP = "metal.rackwright.io"
VERSION = "v1alpha1"
FINALIZER = f"{GROUP}/release"
"""Keeps a machine's record until what is installed on it was released."""
INSTALLED_ANNOTATION = f"{GROUP}/installed"
"""A copy of `status.installed` that a backup without status keeps: evidence that the machine had an owner."""
RECORD_ANNOTATION = f"{GROUP}/record"
"""The uid that the record had when it was first held: in another record it says that this one comes from a backup."""
RACK_LABEL = f"{GROUP}/rack"
"""Label of a machine, the rack that it stands in: one shard of a sharded operator has all that are in it, and
installations at once may be limited by it."""
SHARD_LABEL = f"{GROUP}/shard"
"""Label of a machine: the very shard, a number, where a site assigns them itself."""
SHARDED_BY_ANNOTATION = f"{GROUP}/sharded-by"
"""What puts a machine into its shard until the shard's operator lets go of it; written by sharded operators alone."""
FORCE_DELETE_ANNOTATION = f"{GROUP}/force-delete"
"""`"true"` lets a deleted machine's record go at once, without a release."""
