"""Wine classes on MOSEC with its batching: one worker, one row a request."""

from __future__ import annotations

from typing import Any

from mosec import Server, Worker
from wine_model import MAX_BATCH_SIZE, WAIT_S, predict, train


class Wine(Worker):
    """Asks the model about the rows of many requests at once."""

    def __init__(self) -> None:
        super().__init__()
        self.model = train()

    def forward(self, data: list[dict[str, Any]]) -> list[Any]:
        """Return the class of each row."""
        return predict(self.model, [each["features"] for each in data])


if __name__ == "__main__":
    server = Server()
    server.append_worker(Wine, num=1, max_batch_size=MAX_BATCH_SIZE, max_wait_time=round(WAIT_S * 1000))
    server.run()
