"""The engine elsewhere: answers streamed from any server with OpenAI's API."""
