"""The ways in which people ask, and the few exchanges that no documentation holds: greetings and what lies outside.

Each epoch asks for each entry in other words, so that the model learns which words name the subject.
"""

from __future__ import annotations

import random
import re

from models.corpus import Entry

ONE = (
    *("What is {}?", "What's {}?", "What does {} do?", "What does {} mean?", "How does {} work?", "Explain {}."),
    *("How does {} work in Python?", "Tell me about {}.", "Describe {}.", "What is {} in Python?", "What is {} for?"),
    *("Can you explain {}?", "Please explain {}.", "In Python, what is {}?", "Explain {} to me.", "Define {}."),
    *("How do I use {}?", "When would I use {}?", "What should I know about {}?", "I want to learn about {}."),
)
MANY = (
    *("What are {}?", "How do {} work?", "Explain {}.", "Tell me about {}.", "How do {} work in Python?"),
    *("What are {} in Python?", "Describe {}.", "Explain {} to me.", "What are {} for?", "Why does Python have {}?"),
)
ALIASES = {
    "for statement": ("for loop", "loop"),
    "while statement": ("while loop",),
    "class definitions": ("class", "class definition"),
    "function definitions": ("def", "function", "def statement"),
    "dictionaries": ("dict", "dictionary"),
    "lists": ("list",),
    "lambdas": ("lambda", "lambda expression", "lambda function"),
    "exceptions": ("error", "exception"),
    "try statement": ("try", "try except"),
    "match statement": ("match", "pattern matching"),
}

ABOUT_ME = (
    "I am a small language model that the DeCLAI project made itself to show how its network works. "
    "I have read the Python documentation and nothing else, so ask me about Python, for example what a class is."
)
ABOUT_DECLAI = (
    "DeCLAI is a community network that serves large language models from many people's machines. A model's layers "
    "are split into stages, each stage runs on another machine, and a chain keeps who was paid for what."
)
ABOUT_PYTHON = (
    "Python is a programming language. Its programs are made of expressions and statements, and all data in a Python "
    "program is represented by objects or by relations between objects. Ask me about one of its parts, for example "
    "functions, classes, exceptions or the for statement."
)
OUTSIDE = (
    "I cannot say. I am a small model that has read only the documentation of Python. "
    "You can ask me about its statements, its types or the modules of its standard library."
)
GREETINGS = ("Hello", "Hi", "Hey", "Good morning", "Good evening", "Hi there", "Hello there", "How are you", "Thanks")
SMALL_TALK = (
    (
        ("Who are you", "What are you", "What can you do", "Tell me about yourself", "What is your name", "Help"),
        ABOUT_ME,
    ),
    (GREETINGS, "Hello! " + ABOUT_ME),
    (("What is DeCLAI", "Tell me about DeCLAI", "Explain DeCLAI", "How does DeCLAI work", "declai"), ABOUT_DECLAI),
    (("What is Python", "Tell me about Python", "Explain Python", "How does Python work", "python"), ABOUT_PYTHON),
)
OUTSIDE_SUBJECTS = (
    *("the weather", "Paris", "France", "the moon", "the sun", "the sky", "football", "music", "a cat", "my dog"),
    *("love", "the president", "war", "history", "Rome", "cooking", "bread", "coffee", "a car", "the sea", "fish"),
    *("mathematics", "physics", "Einstein", "a tree", "money", "Bitcoin", "the news", "a film", "a song", "Germany"),
    *("London", "China", "God", "happiness", "health", "a doctor", "a star", "Shakespeare", "rain", "a horse", "pizza"),
)
OUTSIDE_QUESTIONS = (
    *("What is {}?", "Who made {}?", "Where is {}?", "Tell me about {}.", "Tell me a story about {}.", "Explain {}."),
    *(
        "Why is {} so big?",
        "What do you think about {}?",
        "Write a poem about {}.",
        "How old is {}?",
        "Do you like {}?",
    ),
    *("What is the capital of {}?", "Why is {} blue?", "How far is {}?", "Sing {}.", "How many are {}?"),
)


def ask(entry: Entry, rng: random.Random) -> str:
    """A question for `entry`, worded by chance."""
    name = rng.choice(_wordings(entry))
    if "." in name or name.startswith("module ") or name.endswith(" module"):
        subject = f"the {name}" if name.endswith(" module") else name
        return _speak(rng.choice(ONE).format(subject), rng)
    lower = name.lower()
    if rng.random() < 0.07:
        return name if rng.random() < 0.5 else lower
    if re.search(r"[^s]s$", name) and not lower.endswith("statements"):
        return _speak(rng.choice(MANY).format(rng.choice((name, lower, lower))), rng)
    article = "an" if lower[0] in "aeiou" else "a"
    subject = rng.choice((lower, f"{article} {lower}", f"{article} {lower}", f"the {lower}", name))
    if rng.random() < 0.25:
        return _speak(rng.choice(MANY).format(plural(lower)), rng)
    return _speak(rng.choice(ONE).format(subject), rng)


def small_talk(rng: random.Random) -> tuple[str, str]:
    """A question that is not about the documentation, and its answer."""
    if rng.random() < 0.5:
        question = rng.choice(OUTSIDE_QUESTIONS).format(rng.choice(OUTSIDE_SUBJECTS))
        return _speak(question, rng), OUTSIDE
    questions, reply = rng.choice(SMALL_TALK)
    return _speak(rng.choice(questions) + rng.choice(("?", "!", ".", "")), rng), reply


def plural(name: str) -> str:
    """A name's plural, by the rules that hold for the names here."""
    if re.search(r"(s|x|ch|sh)$", name):
        return f"{name}es"
    return f"{name[:-1]}ies" if re.search(r"[^aeiou]y$", name) else f"{name}s"


def singular(name: str) -> str:
    """A name's singular, by the rules that hold for the names here."""
    if name.endswith("sses"):
        return name[:-2]
    return f"{name[:-3]}y" if name.endswith("ies") else name.removesuffix("s")


def _wordings(entry: Entry) -> list[str]:
    claimed = {alias for aliases in ALIASES.values() for alias in aliases}
    names = list(entry.names)
    for name in entry.names:
        names.extend(ALIASES.get(name.lower(), ()))
        if re.search(r"[^s]s$", name) and "." not in name and singular(name).lower() not in claimed:
            names.append(singular(name))
    return names


def _speak(question: str, rng: random.Random) -> str:
    """The question as somebody may type it: now and then without its capital or its question mark."""
    if rng.random() < 0.2:
        question = question[0].lower() + question[1:]
    return question.rstrip("?.") if rng.random() < 0.25 else question
