"""The moving average, eq. 2."""

from __future__ import annotations

import copy

import torch
from torch import nn

from s5mars.objective.teacher import update_teacher


def test_parameters_and_buffers_move_and_counters_are_copied() -> None:
    student = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    teacher = copy.deepcopy(student)
    before = copy.deepcopy(teacher.state_dict())
    student(torch.randn(4, 3, 5, 5))  # moves the running statistics
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(1.0)
    update_teacher(teacher, student, momentum=0.75)
    after = teacher.state_dict()
    for name, value in student.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(after[name], 0.75 * before[name] + 0.25 * value)
        else:
            assert torch.equal(after[name], value)


def test_without_momentum_the_student_is_copied() -> None:
    student, teacher = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 1)
    update_teacher(teacher, student, momentum=0.0)
    torch.testing.assert_close(teacher.weight, student.weight)
