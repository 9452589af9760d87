"""Every control of llama-swap's page, and the test that tries ours: who comes from there finds everything they had.

`CHECKLIST` names each control by the part of the page it is on there. What is not here has its reason in
docs/llama-swap.md instead of a test.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

HERE = Path(__file__).parents[1] / "ui"
DOCS = (Path(__file__).parents[2] / "docs" / "llama-swap.md").read_text("utf-8")

CHECKLIST: dict[str, dict[str, str]] = {
    "frame": {
        "a sidebar that shrinks to symbols": "frame: the_sidebar_as_symbols",
        "... and is a sheet on a phone": "frame: on_a_phone",
        "a connection's state, and the version": "frame: the_program_is_restarted; settings: which_program_this_is",
        "a title that is edited in its place": "models: the_title",
        "the pages, of which one is marked": "frame: the_sidebar_lists_every_page",
        "the models and peers under their entry, with states": "models: the_models_in_the_sidebar; models: peers",
        "system, light, dark": "frame: the_theme",
        "a profile is picked, None among them": "frame: a_profile_is_chosen; models: the_profile_with_symbols_only",
        "the browser's tab tells the connection": "frame: the_tab_says_where_one_is",
    },
    "activity": {
        "requests completed, cached, processed, generated": "requests: the_sums_and_the_distributions",
        "two distributions of speeds, which can be hidden": "requests: the_sums_and_the_distributions",
        "what is in flight: count, ticking time, bytes": "requests: a_stream_is_watched_and_opens_as_it_ends",
        "... its columns, their order, a fold": "requests: the_columns_of_what_is_under_way",
        "... and a request is cancelled": "requests: a_request_is_cancelled",
        "the table's columns, hidden ones too": "requests: the_table_has_every_column",
        "a head sorts": "requests: a_head_sorts_both_ways",
        "filters with a dot, rows per page, clear": "requests: filters_narrow_the_table",
        "export as Markdown, with Copy": "requests: the_table_is_exported",
        "a pager": "requests: the_table_has_pages",
        "a capture: four folds, Chat, Pretty, Raw, Copy": "requests: what_went_over_the_wire",
        "a capture that is not there any more": "requests: a_capture_that_is_gone",
    },
    "chat": {
        "model, and the groups that it is chosen from": "playground: the_model_is_searched_and_remembered",
        "endpoint": "playground: each_endpoint_answers",
        "system prompt, temperature, tokens, statistics": "playground: parameters_are_sent_and_kept",
        "a session in each request": "playground: a_request_carries_a_session_and_an_id_that_finds_it",
        "Markdown, formulas and code as they come": "playground: an_answer_is_shown_piece_by_piece",
        "reasoning in a fold": "playground: reasoning_is_folded_away_once_the_answer_comes",
        "images, up to five": "playground: images_are_picked_pasted_dropped_looked_at_and_removed",
        "edit and ask again from there": "playground: a_question_is_edited_and_asked_again_from_there",
        "regenerate": "playground: an_answer_is_given_again",
        "copy, rendered or raw": "playground: an_answer_is_copied_and_shown_as_it_came",
        "follow unless one scrolled up": "playground: the_page_follows_the_answer_unless_one_scrolled_up",
        "a large window for a long text": "playground: a_long_text_gets_a_large_window",
        "Enter sends, Shift+Enter breaks the line": "playground: the_chat_works_with_a_keyboard_alone",
        "cancel keeps what came": "playground: stop_keeps_what_came",
        "errors in the answer": "playground: errors_stand_in_the_answer",
        "history": "playground: chats_are_kept_found_renamed_and_deleted",
        "a running answer survives another page": "playground: an_answer_goes_on_while_one_looks_elsewhere",
    },
    "the playground's other tabs": {
        "each remembers its model": "playground_tabs: each_tab_offers_fitting_models_first_and_remembers_its_own",
        "images: sizes, generate, full view, download": "playground_tabs: an_image_is_drawn_looked_at_and_saved",
        "images over SD's API: steps to LoRAs": "playground_tabs: stable_diffusion_has_its_own_settings",
        "images: cancel and clear": "playground_tabs: a_drawing_is_cancelled",
        "speech: voices, generate, auto-play, download": "playground_tabs: a_text_is_spoken_played_and_saved",
        "speech: voices of a server that has no list": "playground_tabs: a_server_without_voices_has_the_usual_ones",
        "transcription: drop or browse, copy": "playground_tabs: a_recording_is_written_down",
        "transcription: cancel": "playground_tabs: a_transcription_is_cancelled",
        "rerank: query, documents, scores, order": "playground_tabs: documents_are_ranked",
        "rerank: table and JSON": "playground_tabs: documents_are_written_as_rows_and_as_json",
        "rerank: cancel": "playground_tabs: a_ranking_is_cancelled_or_fails",
        "load test: queue, go, time line, cards": "playground_tabs: a_load_test_sends_all_at_once",
        "load test: stop": "playground_tabs: a_load_test_is_stopped",
        "load test: order of the cards": "playground_tabs: queued_requests_are_moved_and_removed",
    },
    "models": {
        "how many, how many ready": "models: load_and_unload",
        "Unload All": "models: unload_all",
        "load, cancel, unload": "models: load_and_unload; models: a_load_is_cancelled",
        "progress of a load": "models: a_load_that_was_measured_tells_the_time_left",
        "show unlisted models, and their tag": "models: unlisted_models",
        "name, id, aliases, description, capabilities": "models: what_a_row_says",
        "open a model's own server": "models: what_a_row_says",
        "profiles with their pins": "models: profiles",
        "selectors with targets, strategy, spillover": "models: selectors",
        "peers' models": "models: peers",
        "a page for each model, by alias too": "models: the_page_of_a_model",
        "its activity": "models: the_requests_of_a_model",
        "its log": "models: the_log_of_a_model",
        "its details": "models: how_a_model_was_started",
    },
    "logs": {
        "both, or one of them": "logs: both_logs_stand_side_by_side_and_follow; logs: one_log_alone_and_another_one",
        "panes that are resized, by keys too": "logs: the_border_moves_by_keys",
        "font size, wrap": "logs: size_wrap_copy_and_clear",
        "a filter by pattern": "logs: a_pattern_keeps_what_fits",
        "terminal colours": "logs: a_hostile_line_is_text_with_colours",
        "follow unless one scrolled up": "logs: who_scrolled_up_is_left_there",
    },
    "performance and hardware": {
        "plots of processors, memory, load, network, cards": "machine: it_plots_requests_tokens_and_the_machine",
        "window and pace, and a button": "machine: window_and_pace_are_kept",
        "a hidden tab pauses": "machine: a_hidden_tab_asks_nothing",
        "hardware as text, with Copy": "machine: the_hardware_can_be_copied_for_a_bug_report",
    },
    "settings": {
        "themes": "settings: theme_and_title",
        "capability tags": "settings: what_is_shown",
        "build and stream": "settings: which_program_this_is",
    },
}
LEFT_OUT = ("eleven themes", "help by a model", "Tailcat")  # docs/llama-swap.md says why


def tried() -> set[str]:
    """`models: unload_all` for each test of these pages."""
    return {
        f"{path.stem.removeprefix('test_')}: {node.name.removeprefix('test_')}"
        for path in HERE.glob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.AsyncFunctionDef | ast.FunctionDef) and node.name.startswith("test_")
    }


@pytest.mark.parametrize("part", CHECKLIST)
def test_each_control_is_tried(part: str) -> None:
    """By a test that is there."""
    known = tried()
    missing = {control: named for control, named in CHECKLIST[part].items() if not set(named.split("; ")) <= known}
    assert not missing


@pytest.mark.parametrize("what", LEFT_OUT)
def test_what_is_left_out_has_its_reason(what: str) -> None:
    """For those who look for it."""
    assert what.lower() in DOCS.lower()
