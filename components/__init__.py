"""Kubeflow components: one per verb of the command line (two for `enhance`), each one call of it.

Components hand each other references (`<location>@sha256:<checksum>`), never data; the command checks that
its inputs are the versions that the references name, and that it wrote what it promises. A gate hands on the
reference of what passed, so that nothing can be used that was not judged. The checksums and the settings are
parameters, and therefore part of the key under which Kubeflow caches a step.
"""

import functools
import os

from kfp import dsl

# 'python' in the name keeps kfp's local runner from warning that the image may lack an interpreter.
IMAGE = os.environ.get("DIFFSE_IMAGE", "diffse-python:0.1.0")

# The image holds diffse and kfp, so a step installs nothing when it starts.
component = functools.partial(dsl.component, base_image=IMAGE, install_kfp_package=False)
