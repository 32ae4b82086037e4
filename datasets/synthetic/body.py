"""The geometry of bodies: a pose becomes points in space.

Body frame: x to the person's own left, y up, z to the front, unit = the person's standing height.
Camera frame: x to the viewer's right, y down, z towards the viewer, same unit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from datasets.synthetic.people import Appearance, Pose

# Single vectors are tuples: NumPy takes a hundred times as long for three numbers.
_Vector = tuple[float, float, float]


@dataclass
class Body:
    """A posed body in the camera frame, origin on the ground below the pelvis.

    Attributes:
        points: joint name -> [3] float: "left_shoulder", ..., "left_toe", "pelvis", "neck",
            "head", "left_hand", ...
        head_axes: [3, 3], rows = the head's left, up and front directions, unit vectors.
        head_radii: of the head along these axes.
        trunk_axes: [3, 3], rows = the trunk's left, up and front directions.
        radii: name -> half thickness of a body part.
    """

    points: dict[str, np.ndarray]
    head_axes: np.ndarray
    head_radii: tuple[float, float, float]
    trunk_axes: np.ndarray
    radii: dict[str, float]


@dataclass(frozen=True)
class _Proportions:
    """Lengths of a body, in heights of the person; see `Body` for the last two."""

    shoulder: float
    hip: float
    thigh: float
    shin: float
    ankle: float
    trunk: float
    upper_arm: float
    forearm: float
    head_radii: tuple[float, float, float]
    radii: dict[str, float]


def _proportions(appearance: Appearance) -> _Proportions:
    """Child or adult, build, and narrower shoulders and wider hips with long hair."""
    child = appearance.is_child
    girth = {"slim": 0.88, "average": 1.03, "stout": 1.3}[appearance.build]
    slender = 0.94 if appearance.long_hair else 1.0
    shoulder = (0.112 if child else 0.118) * slender * (0.6 + 0.4 * girth)
    hip = 0.062 * (0.6 + 0.4 * girth) * (1.06 if appearance.long_hair else 1.0)
    head = 1.28 if child else 1.0
    limb = 0.75 + 0.25 * girth
    return _Proportions(
        shoulder=shoulder,
        hip=hip,
        thigh=0.215 if child else 0.235,
        shin=0.215 if child else 0.235,
        ankle=0.05 if child else 0.045,
        trunk=0.27 if child else 0.285,
        upper_arm=0.145 if child else 0.165,
        forearm=0.13 if child else 0.148,
        head_radii=(0.077 * head, 0.094 * head, 0.086 * head),
        radii={
            "upper_arm": 0.038 * limb,
            "elbow": 0.033 * limb,
            "wrist": 0.027 * limb,
            "hand": 0.031,
            "thigh": 0.062 * limb,
            "knee": 0.048 * limb,
            "ankle": 0.033 * limb,
            "foot": 0.028,
            "neck": 0.036,
            "hip_wide": hip + 0.052 * girth,
            "hip_deep": 0.075 * girth,
            "waist_wide": 0.098 * girth * slender,
            "waist_deep": 0.07 * girth,
            "chest_wide": shoulder + 0.006,
            "chest_deep": 0.078 * (0.7 + 0.3 * girth),
        },
    )


def build_body(appearance: Appearance, pose: Pose, camera_pitch: float) -> Body:
    """Poses a body and turns it into the camera frame.

    Args:
        appearance: gives the proportions (child or adult, build).
        pose: the joint angles.  Elbows bend by at most 150 degrees, knees by 2 to 145, backwards.
        camera_pitch: how far the camera looks down, degrees.

    Returns:
        The body, in heights of the person; its lowest point stands on the ground (or `pose.lift`
        above it).
    """
    sizes = _proportions(appearance)
    trunk_axes, head_axes = _trunk_axes(pose), _head_axes(pose)
    left, up, _ = trunk_axes
    pelvis = (0.0, 0.0, 0.0)
    chest, neck = _along(pelvis, up, sizes.trunk), _along(pelvis, up, sizes.trunk + 0.03)
    points: dict[str, _Vector] = {"pelvis": pelvis, "chest": chest, "neck": neck}
    points["head"] = _along(neck, head_axes[1], 0.035 + sizes.head_radii[1])
    for name, side in (("left", 1), ("right", -1)):
        shoulder = _along(chest, left, side * sizes.shoulder)
        points |= _arm_points(name, side, pose, sizes, shoulder)
        points |= _leg_points(name, side, pose, sizes)

    stacked = np.array(list(points.values()))
    stacked[:, 1] += pose.lift + 0.02 - stacked[:, 1].min()
    from_camera = _to_camera(pose.yaw, camera_pitch).T
    return Body(
        points=dict(zip(points, stacked @ from_camera, strict=True)),
        head_axes=np.array(head_axes) @ from_camera,
        head_radii=sizes.head_radii,
        trunk_axes=np.array(trunk_axes) @ from_camera,
        radii=sizes.radii,
    )


def _trunk_axes(pose: Pose) -> tuple[_Vector, _Vector, _Vector]:
    """Left, up and front of the trunk in the body frame."""
    lean, roll = math.radians(pose.lean), math.radians(pose.roll)
    up = (math.sin(roll), math.cos(lean) * math.cos(roll), math.sin(lean) * math.cos(roll))
    left = (math.cos(roll), -math.sin(roll), 0.0)
    return left, up, _cross(left, up)


def _head_axes(pose: Pose) -> tuple[_Vector, _Vector, _Vector]:
    """Left, up and front of the head in the body frame."""
    lean, roll = math.radians(pose.lean), math.radians(pose.roll)
    # The neck straightens the head by half of the trunk's inclination.
    head_lean = lean * 0.5 + math.radians(pose.head_nod)
    up = _unit((math.sin(roll), math.cos(head_lean), math.sin(head_lean)))
    turn = math.radians(pose.head_turn)
    left = (math.cos(turn), 0.0, -math.sin(turn))
    left = _unit(_along(left, up, -_dot(left, up)))
    return left, up, _cross(left, up)


def _arm_points(
    name: str, side: int, pose: Pose, sizes: _Proportions, shoulder: _Vector
) -> dict[str, _Vector]:
    """Points of the "left" (side 1) or "right" (side -1) arm in the body frame."""
    arm = pose.left_arm if side == 1 else pose.right_arm
    upper = _direction(arm.out, arm.forward, side)
    lower = _limit_bend(upper, _direction(arm.lower_out, arm.lower_forward, side), 150.0)
    elbow = _along(shoulder, upper, sizes.upper_arm)
    wrist = _along(elbow, lower, sizes.forearm)
    return {
        f"{name}_shoulder": shoulder,
        f"{name}_elbow": elbow,
        f"{name}_wrist": wrist,
        f"{name}_hand": _along(wrist, lower, 0.035),
    }


def _leg_points(name: str, side: int, pose: Pose, sizes: _Proportions) -> dict[str, _Vector]:
    """Points of the "left" (side 1) or "right" (side -1) leg in the body frame."""
    leg = pose.left_leg if side == 1 else pose.right_leg
    hip = (side * sizes.hip, 0.0, 0.0)
    knee = _along(hip, _direction(leg.out, leg.forward, side), sizes.thigh)
    shin = _direction(leg.lower_out, leg.lower_forward, side)
    ankle = _along(knee, shin, sizes.shin)
    # The foot stands at a right angle to the shin, toes a little outwards.
    toe = _unit(_along((0.25 * side, 0.0, 1.0), shin, -0.8 * shin[2]))
    heel = _along(ankle, shin, sizes.ankle - 0.02)
    return {
        f"{name}_hip": hip,
        f"{name}_knee": knee,
        f"{name}_ankle": ankle,
        f"{name}_heel": heel,
        f"{name}_toe": _along(heel, toe, 0.085),
    }


def _to_camera(yaw: float, camera_pitch: float) -> np.ndarray:
    """Rotation [3, 3] from the body frame to the camera frame; angles in degrees."""
    yaw, pitch = math.radians(yaw), math.radians(camera_pitch)
    across, ahead = math.sin(yaw), math.cos(yaw)  # the body turns ...
    down, level = math.sin(pitch), math.cos(pitch)  # ... and the camera looks down on it
    return np.array(
        (
            (ahead, 0.0, across),
            (-down * across, -level, down * ahead),
            (-level * across, down, level * ahead),
        )
    )


def _direction(out: float, forward: float, side: int) -> _Vector:
    """Unit vector of the angles of `Limb`, for the left (side 1) or right (-1) limb."""
    a, f = math.radians(out), math.radians(forward)
    return side * math.sin(a), -math.cos(a) * math.cos(f), math.cos(a) * math.sin(f)


def _limit_bend(upper: _Vector, lower: _Vector, limit: float) -> _Vector:
    """The lower segment's direction, turned towards the upper one's where they bend too far."""
    cosine = _dot(upper, lower)
    if cosine >= math.cos(math.radians(limit)):
        return lower
    across = _along(lower, upper, -cosine)
    # Folded back exactly, any plane is as good as another.
    across = _unit(across) if _dot(across, across) > 1e-12 else (0.0, 0.0, 1.0)
    bent = _along((0.0, 0.0, 0.0), upper, math.cos(math.radians(limit)))
    return _along(bent, across, math.sin(math.radians(limit)))


def _along(start: _Vector, direction: _Vector, distance: float) -> _Vector:
    """The point at that distance from the start, in units of the direction's length."""
    return (
        start[0] + direction[0] * distance,
        start[1] + direction[1] * distance,
        start[2] + direction[2] * distance,
    )


def _dot(first: _Vector, second: _Vector) -> float:
    return first[0] * second[0] + first[1] * second[1] + first[2] * second[2]


def _cross(first: _Vector, second: _Vector) -> _Vector:
    return (
        first[1] * second[2] - first[2] * second[1],
        first[2] * second[0] - first[0] * second[2],
        first[0] * second[1] - first[1] * second[0],
    )


def _unit(vector: _Vector) -> _Vector:
    length = math.sqrt(_dot(vector, vector))
    return vector[0] / length, vector[1] / length, vector[2] / length
