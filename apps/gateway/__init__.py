"""The gateway: clients on one side, the bus on the other, and the sessions between."""
