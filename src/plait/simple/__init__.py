"""One message, one answer, and all that a production service needs around it: `AsyncOpenAISimpleAgent` and its kin."""
