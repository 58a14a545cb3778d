"""Tests that take long: `scripts/nightly` runs them, `scripts/test` does not.

The beginning of a test's name is enough. What stands in for one from day to day, where something does, is named behind.
"""

from __future__ import annotations

LONG = (
    *(
        f"tests/unit/test_backbone_pages.py::test_a_page_shows_what_plan_prints[{family}]"
        for family in ("sd15", "sdxl", "sd3", "flux", "qwen_image")
    ),  # [sana]
    "tests/fuzz/test_fuzz.py::test_no_input_does_what_none_may_do[600]",  # [60]
    "tests/docs/test_notebooks.py::test_it_runs[1_demo]",  # tests/cli/test_demo.py
    "tests/cli/test_align.py::test_votes_of_the_lab",  # test_from_pictures_and_a_table
    "tests/cli/test_align.py::test_what_fits_a_card_is_words_of_the_commands[1.52GB]",
    "tests/unit/test_plan.py::test_sd15_lora_and_checkpointing",  # test_sd15_is_counted_as_published
    "tests/unit/test_plan.py::test_sdxl_is_counted_as_published",
    "tests/unit/test_study.py::test_workers_end_with_a_study_that_was_killed",  # its other tests
    "tests/cli/test_study_cli.py::test_study_stops_resumes_and_reports",
    "tests/invariant/test_training.py::test_kto_has_one_anchor_a_step",  # test_two_processes_equal_one
    "tests/invariant/test_training.py::test_too_many_processes_are_refused",
    "tests/invariant/test_shapes_of_pictures.py::test_splits_change_nothing",  # test_squares_train_as_without
    "tests/invariant/test_shapes_of_pictures.py::test_encoded_when_drawn",
    "tests/invariant/test_text_encoder_lora.py::test_a_run[sdxl]",  # [sd15]
    "tests/invariant/test_text_encoder_lora.py::test_exports_of_modules_that_differ[sdxl]",  # [sd15]
    "tests/invariant/test_text_encoder_lora.py::test_what_a_run_leaves_is_read_by_plain_diffusers[sdxl]",  # [sd15]
    *(
        f"tests/invariant/test_text_encoder_lora.py::test_a_checkpoint_is_the_run_of_that_step[{kind}]"
        for kind in ("sd15-dora", "sd15-ema", "sdxl-plain", "sdxl-dora", "sdxl-ema")
    ),  # [sd15-plain]
    "tests/invariant/test_text_encoder_lora.py::test_dropout",  # test_lora_options: dropout
    "tests/invariant/test_text_encoder_lora.py::test_samples_in_half_precision",  # tests/unit/test_precision.py
    "tests/invariant/test_going_on.py::test_a_checkpoint_is_a_run[['lora={rank: 2, alpha: 4}']]",  # [[]]
    "tests/invariant/test_going_on.py::test_a_checkpoint_is_a_run[['train.ema_decay=0.5']]",
    "tests/invariant/test_moving_reference.py::test_an_average_is_that_of_its_definition[text encoder]",  # [lora]
    "tests/invariant/test_moving_reference.py::test_an_average_is_that_of_its_definition[full]",
    *(f"tests/invariant/test_many_writers.py::test_four_processes_and_a_kill[{at}]" for at in (1, 2, 4, 5)),  # [0], [3]
    "tests/unit/test_step_benchmark.py::test_every_variant_of_a_gpu_measurement_runs",  # its other tests
    "tests/unit/test_step_benchmark.py::test_losses_and_gradient_norms_are_equal",
    "tests/unit/test_step_benchmark.py::test_the_full_size_measurement_runs",
    *(f"tests/invariant/test_stopping.py::test_interrupted_it_decides_the_same[{at}]" for at in (2, 3, 5, 6)),  # [1]
    "tests/invariant/test_stopping.py::test_it_leaves_the_best_step[0-",  # [4-lora]
    "tests/invariant/test_stopping.py::test_it_leaves_the_best_step[4-average]",
    "tests/invariant/test_stopping.py::test_it_leaves_the_best_step[4-full]",
    "tests/invariant/test_stopping.py::test_all_looks_speak",
    "tests/invariant/test_fsdp.py::test_sharded",  # its refusals, and test_training: two processes
    "tests/invariant/test_fsdp.py::test_overflows_are_shared",
    "tests/invariant/test_fsdp.py::test_a_sharded",
    "tests/invariant/test_fsdp.py::test_the_",
    "tests/invariant/test_restarts.py::test_a_killed_process_changes_nothing",  # test_an_attempt_knows_nothing
    "tests/cli/test_launchers.py::test_srun_starts_a_run_of_two",  # test_which_process_it_is
    "tests/invariant/test_restarts.py::test_what_is_shared_out_goes_on",  # test_many_writers, test_shared_reading
    "tests/invariant/test_restarts.py::test_two_killed_go_on_as_one_and_as_three",
    "tests/invariant/test_restarts.py::test_two_machines_meet_at_a_rendezvous",
    "tests/invariant/test_going_on.py::test_two_one_and_two_processes",  # test_training: two processes, and resumed
    "tests/invariant/test_heldout.py::test_two_processes_say_the_same",
    *(
        f"tests/invariant/test_heldout.py::test_what_it_says_is_what_the_networks_do[{kind}]"
        for kind in ("window", "full", "average", "sft")
    ),  # [lora]
    "tests/invariant/test_shapes_of_pictures.py::test_two_processes_equal_one",
    "tests/invariant/test_shapes_of_pictures.py::test_a_cache_of_errors_is_the_same_run[words0]",  # [words1]
    "tests/invariant/test_shapes_of_pictures.py::test_single_images",
    "tests/invariant/test_shapes_of_pictures.py::test_inversions_of_all_shapes",
    "tests/invariant/test_trajectory_cache.py::test_two_processes_deal_out_the_shards",
    *(
        f"tests/invariant/test_trajectory_cache.py::test_a_run_with_the_cache_is_the_run_without[words{number}]"
        for number in (1, 2, 3)
    ),  # [words0]
    "tests/invariant/test_text_encoder_lora.py::test_two_processes_are_one",
    "tests/invariant/test_counters_resume.py::test_resumed_equals_uninterrupted[inversion]",  # [shared]
    "tests/invariant/test_quantized.py::test_trained_resumed_exported_and_loaded[flux]",  # [sdxl]
    "tests/invariant/test_quantized.py::test_the_plan_counts_it[sdxl]",  # [flux]
    *(
        f"tests/invariant/test_single_file_runs.py::test_a_file_trains_generates_and_exports_as_its_folder[{kind}]"
        for kind in ("sd15-full", "sdxl-lora", "sdxl-full")
    ),  # [sd15-lora]
    "tests/invariant/test_guided_export.py::test_one_folder[sdxl",  # [sd15-kinds0]
    "tests/invariant/test_guided_export.py::test_one_folder[sd3",
    "tests/invariant/test_training.py::test_killed_and_resumed_is_bitwise_the_same[4-0.02]",  # [1-0.001]
    "tests/invariant/test_training.py::test_killed_and_resumed_is_bitwise_the_same[6-0.04]",
    "tests/unit/test_plan.py::test_card_layers[t4-sdxl]",  # [t4-sd15]
    "tests/unit/test_plan.py::test_card_layers[24gb-sd15]",
    "tests/unit/test_plan.py::test_card_layers[12gb-sd3]",
    "tests/unit/test_plan.py::test_card_layers[24gb-flux]",
    "tests/cli/test_rounds.py::test_two_rounds_and_one_that_was_ended",  # test_people_are_waited_for_...
    "tests/cli/test_installed.py::test_installed_in_an_empty_environment",  # tests/unit/test_package.py
    "tests/cli/test_lab_voters.py::test_what_was_acknowledged_is_there_after_kills",  # tests/unit/test_vote_site.py
)
