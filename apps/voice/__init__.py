"""Voice for people: the page, `penstock transcribe` and `penstock talk`, all of them clients of `/v1/realtime`."""
