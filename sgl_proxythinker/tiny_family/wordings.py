"""How questions are worded: for each kind, wordings to train on, to validate on and to test on, none of them shared."""

from __future__ import annotations

import random
from collections.abc import Mapping

TRAIN, VALIDATION, TEST = "train", "validation", "test"

OPENERS = (
    "", "", "", "Look at the picture. ", "Look at the grid. ", "Here is a grid. ", "Please look at the picture. ",
    "I have a question. ", "Tell me: ",
)  # fmt: skip

# {what}, {more}, {fewer}: "red shapes", "circles", "blue diamonds"; {start}: a cell; {steps}: a number
WORDINGS: dict[str, dict[str, tuple[str, ...]]] = {
    "count": {
        TRAIN: (
            "How many {what} are there?",
            "Count the {what}.",
            "What is the number of {what}?",
            "Give the number of {what}.",
            "How many {what} do you see in the picture?",
            "Tell me how many {what} the grid has.",
            "How many {what} are in it?",
            "Find the number of {what} in the grid.",
            "How many {what} does the picture show?",
            "Count all {what} in the picture and tell me the number.",
            "The grid has how many {what}?",
            "Please count the {what} that you see.",
            "What number of {what} is in the grid?",
            "I want to know how many {what} there are.",
            "Count how many {what} are in the grid.",
            "The number of {what}, please.",
            "In the picture, how many {what} are there?",
            "What do you get if you count the {what}?",
            "Look for {what}. How many do you find?",
            "Give me the number of {what} that the picture has.",
        ),
        VALIDATION: ("How many {what} does the grid have?", "Please tell me the number of {what}."),
        TEST: ("Tell me the number of {what} in the picture.", "How many {what} do you see in the grid?"),
    },
    "add": {
        TRAIN: (
            "Add the digits on the {what}.",
            "What is the sum of the digits on the {what}?",
            "Sum the digits of the {what}.",
            "What do the digits on the {what} add up to?",
            "Find the sum of all digits on {what}.",
            "Add up the digits of all {what} in the picture.",
            "Take the digits on the {what}. What is their sum?",
            "What is the sum of the digits that the {what} have?",
            "Tell me the total of the digits on the {what}.",
            "Please add all digits that you see on {what}.",
            "In the grid, what is the total of the digits on {what}?",
            "I want to know the sum of the digits on the {what}.",
            "Give the total of the digits on all {what}.",
            "The sum of the digits on the {what}, please.",
            "Add all the digits that are on {what}.",
            "The digits on the {what} have what total?",
            "If you add the digits on all {what}, what do you get?",
            "Look for {what} and add their digits. What is the sum?",
            "In the picture, add up the digits of the {what}.",
            "Tell me the sum of all digits that are on {what}.",
        ),
        VALIDATION: (
            "What is the total of all digits on the {what}?",
            "Please find the sum of the digits of the {what}.",
        ),
        TEST: ("Tell me what the digits on the {what} add up to.", "Add up the digits on all {what} in the grid."),
    },
    "compare": {
        TRAIN: (
            "How many more {more} than {fewer} are there?",
            "There are more {more} than {fewer}. How many more?",
            "What is the number of {more} minus the number of {fewer}?",
            "I see more {more} than {fewer}. How many more?",
            "Count the {more} and the {fewer}. How many more {more} are there?",
            "How many more {more} than {fewer} do you see in the picture?",
            "By how many do the {more} outnumber the {fewer}?",
            "Take the number of {fewer} from the number of {more}.",
            "Tell me how many more {more} than {fewer} the grid has.",
            "What is the difference between the number of {more} and of {fewer}?",
            "Compare the {more} and the {fewer}. How many more {more}?",
            "Give the number of {more} minus the number of {fewer}.",
            "I want to know how many more {more} than {fewer} there are.",
            "Find the difference between the number of {more} and the number of {fewer}.",
            "In the picture, how many more {more} than {fewer} are there?",
            "The {more} outnumber the {fewer}. By how many?",
            "How many {more} are there beyond the number of {fewer}?",
            "Please compare: how many more {more} than {fewer} do you see?",
        ),
        VALIDATION: (
            "The grid has how many more {more} than {fewer}?",
            "Find how many more {more} than {fewer} there are.",
        ),
        TEST: (
            "How many more {more} are in the picture than {fewer}?",
            "Count how many more {more} than {fewer} you see.",
        ),
    },
    "path": {
        TRAIN: (
            "Start at {start} and follow the arrows for {steps} steps. Which digit is there?",
            "Follow the arrows from {start} for {steps} steps. What digit do you reach?",
            "Go {steps} steps along the arrows from {start}. Which digit do you see at the end?",
            "Begin at {start}. Follow the arrows {steps} times. What is the digit at the end?",
            "From {start}, take {steps} steps as the arrows point. Which digit is in the last cell?",
            "Which digit do you reach from {start} after {steps} steps along the arrows?",
            "If you start at {start} and take {steps} steps along the arrows, which digit do you reach?",
            "Take {steps} steps from {start}, each as the arrow points. Tell me the digit there.",
            "Walk from {start} as the arrows point, {steps} steps. Give the digit at the end.",
            "I start at {start} and go {steps} steps along the arrows. What digit do I see?",
            "Start at {start} and take {steps} steps, each as the arrow points. What digit is there?",
            "Go from {start} as the arrows point and stop after {steps} steps. Which digit is there?",
            "Take the cell {start} and follow the arrows {steps} times. Which digit do you reach?",
            "After {steps} steps along the arrows from {start}, which digit is there?",
            "You are at {start}. Go {steps} steps along the arrows. Tell me the digit at the end.",
            "Begin at cell {start} and follow the arrows for {steps} steps. Give the digit there.",
            "Read the arrows from {start} on, {steps} steps. Which digit is in the last cell?",
            "At {start}, follow the arrow, and so on for {steps} steps. What digit is there at the end?",
            "In {steps} steps along the arrows from {start}, which digit do you reach?",
            "Follow {steps} arrows from {start}. What is the digit in the cell that you reach?",
            "Please start at {start}, go {steps} steps as the arrows point, and tell me the digit.",
            "What digit do you see if you begin at {start} and go {steps} steps along the arrows?",
            "Where do {steps} steps along the arrows lead from {start}? Give the digit there.",
            "Tell me the digit that is {steps} steps along the arrows from {start}.",
        ),
        VALIDATION: (
            "Begin at {start} and take {steps} steps along the arrows. Which digit is there?",
            "From {start}, follow the arrows for {steps} steps. Tell me the digit at the end.",
        ),
        TEST: (
            "Start at {start}. Take {steps} steps as the arrows point. What digit do you see there?",
            "Which digit is at the end if you follow the arrows from {start} for {steps} steps?",
        ),
    },
    "odd": {
        TRAIN: (
            "The digits of all rows but one have the same sum. What is the sum of the odd row?",
            "One row has another total than all other rows. What is its total?",
            "Add the digits of each row. One total is different. Which total is it?",
            "Find the row whose digits add up to another total than the others. What is its total?",
            "All rows but one have the same total. Tell me the total that is different.",
            "Which total of a row is different from the total of all other rows?",
            "The sums of the rows are the same, but one is different. What is the different sum?",
            "One row is the odd one out by its sum. What is its sum?",
            "Sum each row. Give the sum that is not like the others.",
            "I want to know the total of the row that is not like the other rows.",
            "Which row has another total than the others? Give its total.",
            "Find the odd row by its total and tell me that total.",
            "One of the rows has a sum that no other row has. What is that sum?",
            "Add up the digits in each row. Which sum is not like the others?",
            "All rows have the same sum but for one. What is the sum of that one?",
            "Tell me the sum of the digits in the row whose sum is different.",
            "Look at the totals of the rows. Which one is the odd one out?",
            "Give the total that only one row has.",
            "What is the sum of the row that is different from the rest?",
            "There is one row with a different total. Tell me the total.",
            "Compare the sums of the rows. Which sum comes once?",
            "Please find the row with another sum and give its sum.",
        ),
        VALIDATION: (
            "One row is the odd one out: its digits have another sum. What is its sum?",
            "Find the total of the row that is different from all other rows.",
        ),
        TEST: (
            "Add up each row. What is the total of the row that is the odd one out?",
            "One row has a different sum than the others. Tell me the sum of that row.",
        ),
    },
    "read_cell": {
        TRAIN: (
            "What is at {start}?",
            "Read cell {start}.",
            "What do you see at {start}?",
            "What is there in {start}?",
            "Tell me what is in cell {start}.",
        ),
    },
    "read_row": {
        TRAIN: (
            "Read row {steps}.",
            "What is in row {steps}?",
            "What do you see in row {steps}?",
            "What is there in row {steps}?",
            "Describe row {steps} of the grid.",
        ),
    },
}


def word(kind: str, split: str, rng: random.Random, words: Mapping[str, object]) -> str:
    """A question of a kind, in one of the split's wordings; what it opens with is any split's."""
    return rng.choice(OPENERS) + rng.choice(WORDINGS[kind][split]).format(**words)
