"""The transport for RabbitMQ, by Kombu."""
