"""``s5mars label``: open the folder, start the page, wait."""

from __future__ import annotations

import logging
import secrets
import socket
from collections.abc import Sequence
from pathlib import Path

from s5mars.classes import Taxonomy
from s5mars.data.layouts.plain import DESCRIPTION
from s5mars.errors import UserError, needed
from s5mars.files.locking import locked
from s5mars.labels.loop.assistant import Assistant
from s5mars.labels.loop.features import open_start_model
from s5mars.labels.loop.folder import STATE, named_classes, open_folder
from s5mars.labels.loop.run_maps import RunMaps
from s5mars.labels.loop.store import Store
from s5mars.labels.loop.trainer import Trainer
from s5mars.models.opened import open_model
from s5mars.text.numbers import plural

logger = logging.getLogger("s5mars")

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def label(
    folder: Path,
    *,
    classes: str | None,
    start_from: str | None,
    port: int,
    host: str,
    device: str,
    training: Sequence[str],
) -> None:
    """Serve the label page of a folder until it is interrupted.

    Args:
        classes: names with commas between them, or the path of a ``dataset.yaml``; None takes those
            of the folder, or else those of the start model.
        start_from: what ``s5mars.load`` opens, which trainings start from, too, if it has an
            encoder to train; None: the ImageNet encoder.
        port: port; 0 takes a free one.
        training: further options of ``s5mars train``.

    Raises:
        UserError: if folder, classes, model, port or options are wrong, or another process serves
            the folder.
    """
    uvicorn = needed("uvicorn", extra="label")
    needed("starlette", extra="label")
    from s5mars.labels.loop.server import LabelServer

    if not folder.is_dir():
        open_folder(folder, None)  # raises
    with locked(folder / STATE), _listening(host, port) as listener:
        named = named_classes(classes) if classes is not None else None
        if named is None and start_from is not None and not (folder / DESCRIPTION).exists():
            named = open_model(start_from).taxonomy
        opened = open_folder(folder, named)
        store = Store(opened)
        model = open_start_model(start_from, device=device)
        start = (start_from, model.encoder) if start_from and model.encoder else None
        trainer = Trainer(store, training, start=start)
        assistant = Assistant(store, model)
        maps = RunMaps(trainer, assistant, device=device)
        token = secrets.token_urlsafe(24)
        local = host in LOOPBACK
        hosts = {*LOOPBACK, "[::1]"} if local else None
        app = LabelServer(store, assistant, trainer, maps).app(token=token, hosts=hosts)
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="warning", server_header=False, lifespan="off",
                           ws="none", timeout_graceful_shutdown=3)
        )  # fmt: skip
        _announce(opened.taxonomy, len(opened.images), folder, listener, host, token)
        assistant.start()
        maps.start()
        try:
            server.run(sockets=[listener])
        finally:
            trainer.close()
            maps.stop()
            assistant.stop()


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen()  # a browser that opens the address at once waits until the server answers
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"--host {host} --port {port}: {reason.lower()}; choose another one, or --port 0 for "
            "any free port"
        ) from None
    return listener


def _announce(
    taxonomy: Taxonomy, images: int, folder: Path, listener: socket.socket, host: str, token: str
) -> None:
    port = listener.getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    if host not in LOOPBACK:
        logger.warning(
            "--host %s lets every machine that reaches this port try the address below, over a "
            "connection without encryption; an SSH tunnel is safer (ssh -L %d:127.0.0.1:%d %s)",
            host, port, port, socket.gethostname(),
        )  # fmt: skip
        if host in ("0.0.0.0", "::"):
            shown = socket.gethostname()
    print(f"{folder}: {plural(images, 'image')}, classes {', '.join(taxonomy.names)}")
    print(f"http://{shown}:{port}/#{token}", flush=True)
    print("open this address in a browser; stop with Ctrl-C", flush=True)
