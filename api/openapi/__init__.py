"""The description of the API, OpenAPI 3.1, made from the code: routes describe themselves beside their handlers."""
