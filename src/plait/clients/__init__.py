"""Chat clients: one question at a time, in the shapes that users of OpenAI's SDK know, at any provider."""
