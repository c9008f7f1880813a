"""Kafka: the bus of a deployment. The only importer of aiokafka.

`bus` puts together `publisher` (records out), `member` and `reader` (records in, both a `source`) and `lookup`
(questions); `topics` sets the route up.
"""

from pipeline.kafka.bus import KafkaBus, State
from pipeline.kafka.settings import KafkaSettings
from pipeline.kafka.topics import Created, Described, create_topics, describe_topics

__all__ = ["Created", "Described", "KafkaBus", "KafkaSettings", "State", "create_topics", "describe_topics"]
