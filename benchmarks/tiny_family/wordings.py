"""How questions are worded: for each kind, wordings to train on, to validate on and to test on. No two sets share one."""

from __future__ import annotations

TRAIN, VALIDATION, TEST = "train", "validation", "test"

# {what}, {more}, {fewer}: "red shapes", "circles", "blue diamonds"; {start}: a cell; {steps}: a number
WORDINGS: dict[str, dict[str, tuple[str, ...]]] = {
    "count": {
        TRAIN: (
            "How many {what} are there?", "Count the {what}.", "What is the number of {what}?",
            "How many {what} do you see in the picture?", "Tell me how many {what} the grid has.",
            "Look at the picture. How many {what} are in it?", "Find the number of {what} in the grid.",
            "Count all {what} in the picture and tell me the number.", "The grid has how many {what}?",
            "Please count the {what} that you see.",
        ),
        VALIDATION: ("How many {what} does the grid have?", "Look at the grid and count the {what}."),
        TEST: ("Tell me the number of {what} in the picture.", "How many {what} do you see in the grid?"),
    },
    "add": {
        TRAIN: (
            "Add the digits on the {what}.", "What is the sum of the digits on the {what}?",
            "What do the digits on the {what} add up to?", "Find the sum of all digits on {what}.",
            "Add up the digits of all {what} in the picture.", "Take the digits on the {what}. What is their sum?",
            "Look at the {what}. What is the sum of their digits?", "Tell me the total of the digits on the {what}.",
            "Please add all digits that you see on {what}.", "In the grid, what is the total of the digits on {what}?",
        ),
        VALIDATION: ("What is the total of all digits on the {what}?", "Please find the sum of the digits of the {what}."),
        TEST: ("Tell me what the digits on the {what} add up to.", "Look at the grid and add up the digits on all {what}."),
    },
    "compare": {
        TRAIN: (
            "How many more {more} than {fewer} are there?", "There are more {more} than {fewer}. How many more?",
            "What is the number of {more} minus the number of {fewer}?", "Count the {more} and the {fewer}. How many more {more} are there?",
            "How many more {more} than {fewer} do you see in the picture?", "By how many do the {more} outnumber the {fewer}?",
            "Take the number of {fewer} from the number of {more}.", "Tell me how many more {more} than {fewer} the grid has.",
            "What is the difference between the number of {more} and of {fewer}?", "Look at the {more} and the {fewer}. How many more {more}?",
        ),
        VALIDATION: ("The grid has how many more {more} than {fewer}?", "Find how many more {more} than {fewer} there are."),
        TEST: ("How many more {more} are in the picture than {fewer}?", "Count how many more {more} than {fewer} you see."),
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
            "Look at the sum of each row. One row is the odd one out. What is its sum?",
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
            "What is at {start}?", "Read cell {start}.", "What do you see at {start}?", "Tell me what is in cell {start}.",
            "Look at {start}. What is there?",
        ),
        VALIDATION: ("What is in cell {start}?",),
        TEST: ("Tell me what you see at {start}.",),
    },
    "read_row": {
        TRAIN: (
            "Read row {steps}.", "What is in row {steps}?", "What do you see in row {steps}?", "Describe row {steps} of the grid.",
            "Look at row {steps}. What is there?",
        ),
        VALIDATION: ("Tell me what is in row {steps}.",),
        TEST: ("Please read row {steps} of the picture.",),
    },
}  # fmt: skip
