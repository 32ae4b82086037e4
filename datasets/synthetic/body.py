"""The geometry of bodies: a pose becomes points in space.

Body frame: x to the person's own left, y up, z to the front, unit = the person's standing height.
Camera frame: x to the viewer's right, y down, z towards the viewer, same unit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from datasets.synthetic.people import Appearance, Pose


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
    trunk_axes = _trunk_axes(pose)
    left, up, _ = trunk_axes
    head_axes = _head_axes(pose)
    points: dict[str, np.ndarray] = {"pelvis": np.zeros(3)}
    points["chest"] = up * sizes.trunk
    points["neck"] = up * (sizes.trunk + 0.03)
    points["head"] = points["neck"] + head_axes[1] * (0.035 + sizes.head_radii[1])
    for name, side in (("left", 1), ("right", -1)):
        shoulder = points["chest"] + left * (side * sizes.shoulder)
        points |= _arm_points(name, side, pose, sizes, shoulder)
        points |= _leg_points(name, side, pose, sizes)

    names = list(points)
    stacked = np.stack([points[name] for name in names])
    stacked[:, 1] += pose.lift + 0.02 - stacked[:, 1].min()
    to_camera = _to_camera(pose.yaw, camera_pitch)
    stacked = stacked @ to_camera.T
    return Body(
        points=dict(zip(names, stacked, strict=True)),
        head_axes=head_axes @ to_camera.T,
        head_radii=sizes.head_radii,
        trunk_axes=trunk_axes @ to_camera.T,
        radii=sizes.radii,
    )


def _trunk_axes(pose: Pose) -> np.ndarray:
    """[3, 3], rows = left, up and front of the trunk in the body frame."""
    lean, roll = math.radians(pose.lean), math.radians(pose.roll)
    up = np.array(
        (math.sin(roll), math.cos(lean) * math.cos(roll), math.sin(lean) * math.cos(roll))
    )
    left = np.array((math.cos(roll), -math.sin(roll), 0.0))
    return np.stack((left, up, np.cross(left, up)))


def _head_axes(pose: Pose) -> np.ndarray:
    """[3, 3], rows = left, up and front of the head in the body frame."""
    lean, roll = math.radians(pose.lean), math.radians(pose.roll)
    # The neck straightens the head by half of the trunk's inclination.
    head_lean = lean * 0.5 + math.radians(pose.head_nod)
    up = np.array((math.sin(roll), math.cos(head_lean), math.sin(head_lean)))
    up /= np.linalg.norm(up)
    turn = math.radians(pose.head_turn)
    left = np.array((math.cos(turn), 0.0, -math.sin(turn)))
    left -= up * (left @ up)
    left /= np.linalg.norm(left)
    return np.stack((left, up, np.cross(left, up)))


def _arm_points(
    name: str, side: int, pose: Pose, sizes: _Proportions, shoulder: np.ndarray
) -> dict[str, np.ndarray]:
    """Points [3] of the "left" (side 1) or "right" (side -1) arm in the body frame."""
    arm = pose.left_arm if side == 1 else pose.right_arm
    upper = _direction(arm.out, arm.forward, side)
    lower = _limit_bend(upper, _direction(arm.lower_out, arm.lower_forward, side), 150.0)
    elbow = shoulder + upper * sizes.upper_arm
    wrist = elbow + lower * sizes.forearm
    hand = wrist + lower * 0.035
    return {
        f"{name}_shoulder": shoulder,
        f"{name}_elbow": elbow,
        f"{name}_wrist": wrist,
        f"{name}_hand": hand,
    }


def _leg_points(name: str, side: int, pose: Pose, sizes: _Proportions) -> dict[str, np.ndarray]:
    """Points [3] of the "left" (side 1) or "right" (side -1) leg in the body frame."""
    leg = pose.left_leg if side == 1 else pose.right_leg
    hip = np.array((side * sizes.hip, 0.0, 0.0))
    knee = hip + _direction(leg.out, leg.forward, side) * sizes.thigh
    shin = _direction(leg.lower_out, leg.lower_forward, side)
    ankle = knee + shin * sizes.shin
    # The foot stands at a right angle to the shin, toes a little outwards.
    toe = np.array((0.25 * side, 0.0, 1.0)) - shin * shin[2] * 0.8
    toe /= np.linalg.norm(toe)
    heel = ankle + shin * (sizes.ankle - 0.02)
    return {
        f"{name}_hip": hip,
        f"{name}_knee": knee,
        f"{name}_ankle": ankle,
        f"{name}_heel": heel,
        f"{name}_toe": heel + toe * 0.085,
    }


def _to_camera(yaw: float, camera_pitch: float) -> np.ndarray:
    """Rotation [3, 3] from the body frame to the camera frame; angles in degrees."""
    yaw, pitch = math.radians(yaw), math.radians(camera_pitch)
    turn_body = np.array(
        ((math.cos(yaw), 0, math.sin(yaw)), (0, 1, 0), (-math.sin(yaw), 0, math.cos(yaw)))
    )
    look = np.array(
        (
            (1, 0, 0),
            (0, -math.cos(pitch), math.sin(pitch)),
            (0, math.sin(pitch), math.cos(pitch)),
        )
    )
    return look @ turn_body


def _direction(out: float, forward: float, side: int) -> np.ndarray:
    """Unit vector [3] of the angles of `Limb`, for the left (side 1) or right (-1) limb."""
    a, f = math.radians(out), math.radians(forward)
    return np.array((side * math.sin(a), -math.cos(a) * math.cos(f), math.cos(a) * math.sin(f)))


def _limit_bend(upper: np.ndarray, lower: np.ndarray, limit: float) -> np.ndarray:
    """The lower segment's direction, turned towards the upper one's where they bend too far."""
    cosine = float(upper @ lower)
    if cosine >= math.cos(math.radians(limit)):
        return lower
    across = lower - cosine * upper
    norm = float(np.linalg.norm(across))
    if norm < 1e-6:  # folded back exactly: any plane is as good as another
        across, norm = np.array((0.0, 0.0, 1.0)), 1.0
    return math.cos(math.radians(limit)) * upper + math.sin(math.radians(limit)) * across / norm
