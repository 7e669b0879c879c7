"""Matrices are multiplied on one thread: those of a conversation are small, and threads that wait do so by spinning.

With OpenBLAS's own number, one for each core, clustering the voice samples of 480 jobs costs four times the processor
time, and on a busy machine takes several times as long (docs/adr/0012-linking.md).
"""

from __future__ import annotations

import os


def use_one_matrix_thread() -> None:
    """Have numpy and scipy multiply on one thread, in this process and those it starts; before either is imported.

    An operator's own setting stands.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
