"""Every rule that the transport must keep, by its number, and the tests that prove it.

A letter says what the rule is about: C connections, F frames, S states of streams, M messages, W windows, H header
compression, G gRPC, K keep-alive and ends, A attacks, T TLS and sockets, P HTTP/1.1. What is refused on purpose is in
docs/reference/transport.md.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent
PAGE = TESTS.parent / "docs" / "reference" / "transport.md"
RULES = {"C": 19, "F": 59, "S": 16, "M": 16, "W": 19, "H": 18, "G": 35, "K": 7, "A": 13, "T": 5, "P": 12}
"""How many there are of each letter."""
ROWS = {"test_row", "test_opening", "test_messages"}
"""Tests with a parameter for each rule, named by its number."""

PROVEN: dict[str, dict[str, str]] = {
    "e2e/test_bad_input.py": {
        "test_a_tls_hello_on_a_plain_port": "C012",
    },
    "transport/http2/test_http2_frames.py": {
        "test_a_block_may_be_cut_anywhere_f056": "F056",
        "test_everything_in_one_segment_is_answered_in_one_write_c010_g001": "C010 G001",
        "test_greeting_c001_c002": "C001 C002",
        "test_opening": "C003 C008 C009",
        "test_ping_is_answered": "F002 F003",
        "test_row": (
            "F001 F004 F005 F006 F007 F008 F009 F010 F011 F012 F013 F014 F015 F016 F017 F018 F019 F020 F021 F022 F023 "
            "F024 F025 F026 F027 F028 F029 F030 F031 F032 F033 F034 F035 F037 F038 F039 F040 F041 F042 F043 F045 F046 "
            "F047 F048 F049 F050 F051 F052 F053 F054 F055 F056 F057 F058 F059 S001 S002 S003 S004 S005 S006 S007 S008 "
            "S011 S012 S013 S016 A003"
        ),
    },
    "transport/http2/test_http2_time.py": {
        "test_a_body_that_stops_a009": "A009",
        "test_a_header_block_that_does_not_end_a009": "A009",
        "test_a_preface_that_does_not_come_c004": "C004",
        "test_a_short_age_is_kept_as_exactly_as_a_long_one_k005": "K005",
        "test_a_silent_client_is_asked_k006": "K006",
        "test_an_idle_connection_is_closed_k007": "K007",
        "test_an_old_connection_is_drained_then_cut_k005": "K005",
        "test_drain_in_two_phases_k003_k004": "K003 K004",
        "test_pings_of_an_idle_client_k001": "K001",
        "test_pings_that_measure_are_no_strikes_k002": "K002",
        "test_settings_that_are_never_acknowledged_c019": "C019",
    },
    "transport/test_http1_server.py": {
        "test_a_body_cut_short_reaches_nobody": "P011",
        "test_a_flood_of_pipelined_requests_yields_to_others": "P012",
        "test_a_half_closed_client_gets_its_reply": "P010",
        "test_a_large_unwanted_body_ends_the_connection_without_destroying_the_reply": "P002",
        "test_bytes_behind_an_unanswered_request_are_bounded": "P012",
        "test_chunks_of_one_byte_extensions_and_trailers": "P003",
        "test_connection_is_kept_as_asked": "P007",
        "test_continue_is_said_only_when_the_body_is_awaited": "P002",
        "test_head_has_the_fields_of_get_and_no_body": "P005",
        "test_replies_keep_the_order_of_pipelined_requests": "P001",
        "test_statuses_without_a_body": "P005",
        "test_targets": "P006",
        "test_upgrade_offers_are_answered_in_http_1_1": "C017 C018",
    },
    "transport/test_listen.py": {
        "test_a_broken_preface_and_a_tls_handshake_end_in_a_close": "C012",
        "test_a_refused_upload_can_be_read": "P008",
        "test_a_socket_file_is_taken_over_only_from_the_dead": "T004",
        "test_a_unix_socket": "T004",
        "test_http_1_in_pieces": "C006 C007",
        "test_the_undecided_are_closed_without_a_word": "C005 C011 A009",
    },
    "transport/test_tls.py": {
        "test_a_refused_upload_can_be_read_under_tls": "P008",
        "test_alpn_h2_and_then_something_else_is_closed": "C014",
        "test_alpn_h2_gets_settings_before_it_says_a_word": "C013",
        "test_certificates_of_clients": "T002",
        "test_http_1_by_alpn_or_by_its_first_bytes": "C015",
        "test_http_2_without_alpn": "C016",
        "test_new_files_serve_new_connections_and_bad_ones_are_not_taken": "T003",
        "test_who_does_not_shake_hands_is_closed": "A009",
    },
    "transport/http2/test_http2_receiving.py": {
        "test_a_connection_that_ignores_its_window_is_ended_w010": "W010",
        "test_a_large_message_gets_its_credit_in_one_step_w012": "W012",
        "test_a_route_may_refuse_a_length_g012": "G012",
        "test_a_stream_that_ignores_its_window_is_reset_w009": "W009",
        "test_bodies_may_not_fill_memory_a010": "A010",
        "test_padding_counts_for_both_windows_f012": "F012",
        "test_split_prefix_and_message_g002_g003": "G002 G003",
        "test_the_connection_window_is_returned_rarely_and_exactly_w011": "W011",
    },
    "transport/http2/test_http2_sending.py": {
        "test_a_reset_reply_frees_its_bytes": "W017",
        "test_a_slow_socket_holds_back_replies_w015": "W015",
        "test_a_socket_stuck_for_too_long_is_closed_w015": "W015",
        "test_a_window_closed_for_too_long_ends_the_stream_w016": "W016",
        "test_a_window_may_become_negative_w003": "W003",
        "test_a_window_of_one_w001_f036": "F036 W001",
        "test_a_window_of_zero_holds_back_data_alone_w002": "W002 W019",
        "test_frames_never_exceed_what_the_peer_takes_w007_w008": "W007 W008",
        "test_headers_pass_an_exhausted_connection_w005": "W005",
        "test_large_replies_take_turns_w006": "W006",
        "test_settings_may_not_overflow_a_window_w004": "W004",
        "test_table_size_of_the_peer_h017": "H017",
        "test_window_updates_out_of_season_w014": "W014",
    },
    "transport/http2/test_http2_server.py": {
        "test_a_head_too_large_gets_431_h016": "H016",
        "test_a_reply_before_the_end_of_the_request_stops_the_upload_in_the_same_write_g022": "G022",
        "test_an_exception_of_the_application_ends_that_exchange_alone_g026": "G026",
        "test_cancelled_work_writes_nothing_and_keeps_its_slot_g021": "G021",
        "test_end_of_input_cancels_s015": "S015",
        "test_frames_on_their_way_to_a_reset_stream_are_no_offence_s009_w013": "S009 W013",
        "test_goaway_of_the_client_lets_its_calls_finish_f044": "F044",
        "test_headers_of_a_stream_above_the_limit_keep_the_table_in_step_s010_h012": "S010 H012",
        "test_the_last_stream_id_ends_the_connection_s014": "S014",
        "test_the_meaning_of_an_index_follows_the_table_h010_h011": "H010 H011",
    },
    "transport/http2/test_http2_messages.py": {
        "test_row": (
            "M001 M002 M003 M004 M005 M006 M007 M008 M009 M010 M011 M012 M013 H001 H002 H003 H004 H005 H006 H007 H008 "
            "H009 H013"
        ),
    },
    "transport/http2/test_http2_plain.py": {
        "test_100_continue_m016": "M016",
        "test_cookies_are_joined_m014": "M014",
        "test_plain_http_m015": "M015",
    },
    "listeners/test_grpc_streams.py": {
        "test_a_bomb_in_a_stream_g011": "G011",
        "test_a_client_that_reads_slowly_makes_the_method_wait_g027": "G027",
        "test_a_message_too_large_is_refused_by_its_prefix_g012": "G012",
        "test_a_method_that_waits_makes_its_client_wait_and_nobody_else_w018": "W018",
        "test_answers_before_the_client_has_ended_g022": "G022",
        "test_cancelled_g021": "G021",
        "test_no_message_at_all_g030": "G030",
        "test_server_streaming_takes_one_message_g005": "G005",
    },
    "transport/http2/test_http2_uploads.py": {
        "test_a_body_that_ends_with_its_head_g030": "G030",
        "test_answered_while_data_arrive_g022": "G022",
        "test_the_window_follows_the_reader_w018": "W018",
        "test_whoever_owes_a_message_may_not_stop_in_its_middle_a009": "A009",
    },
    "transport/http2/test_http2_hpack.py": {
        "test_bombs_end_at_the_hard_limit": "H014 H015",
        "test_lengths_around_the_borders_of_integers_h018": "H018",
    },
    "transport/http2/test_http2_properties.py": {
        "test_the_h2_package_with_a_small_table_h017": "H017",
    },
    "conformance/test_grpc_python.py": {
        "test_the_server_ends_a_call_whose_time_is_over": "G020",
    },
    "conformance/test_grpc_reflection_python.py": {
        "test_files_by_name_and_by_symbol_g034": "G034",
        "test_what_is_described_is_what_is_answered_g034": "G034",
        "test_what_is_listed_is_what_is_offered_g034": "G034",
        "test_what_is_not_found_is_an_answer_g034": "G034",
    },
    "conformance/test_grpc_streams_python.py": {
        "test_an_answer_before_the_client_has_ended_keeps_its_status_g022": "G022",
        "test_cancel_after_begin_g032": "G032",
        "test_cancel_after_first_response_g032": "G032",
        "test_client_streaming_g029": "G029",
        "test_custom_metadata_g032": "G032",
        "test_empty_stream_g030": "G030",
        "test_fifty_thousand_messages_for_a_slow_client_g027": "G027",
        "test_large_messages_both_ways_g031": "G031",
        "test_ping_pong_g028": "G028",
        "test_status_code_and_message_g032": "G032",
        "test_timeout_on_sleeping_server_g032": "G032",
    },
    "listeners/test_grpc_compression.py": {
        "test_large_compressed_requests_g011": "G011",
    },
    "listeners/test_grpc_health.py": {
        "test_check_g033": "G033",
        "test_watch_tells_changes_only_g033": "G033",
    },
    "listeners/test_grpc_rows.py": {
        "test_a_defect_is_internal_and_costs_nobody_else_anything_g026": "G026",
        "test_a_length_that_cannot_be_is_refused_by_the_prefix_g012": "G012",
        "test_an_end_with_the_head_is_answered_g004": "G004",
        "test_an_unknown_encoding_names_those_that_are_known_g010": "G010",
        "test_compressed_requests_g009_g011": "G009 G011",
        "test_content_types_that_are_grpc_g014": "G014",
        "test_content_types_that_are_not_g015": "G015",
        "test_details_of_errors_are_never_sent_g035": "G035",
        "test_messages": "G004 G005 G006 G007 G008 G013",
        "test_messages_of_errors_are_percent_encoded_and_cut_g025": "G025",
        "test_metadata_g023": "G023",
        "test_metadata_that_is_not_base64_g024": "G024",
        "test_methods_of_http_other_than_post_g016": "G016",
        "test_padding_of_nothing_is_nothing_g024": "G024",
        "test_timeouts_g018_g019": "G018 G019",
        "test_two_messages_are_answered_before_the_client_has_ended_g005": "G005",
        "test_what_is_not_there_is_unimplemented_g017": "G017",
    },
    "serving/test_inference.py": {
        "test_a_deadline_ends_a_request_wherever_it_is": "G020",
        "test_a_deadline_that_has_passed_is_not_computed": "G020",
    },
    "transport/http2/test_http2_parts.py": {
        "test_a_client_that_measures_while_it_receives_is_no_flood_k002": "K002",
        "test_a_slow_client_holds_the_producer_and_the_order_is_kept_g027": "G027",
        "test_cancelled_while_it_is_written_g028": "G028",
        "test_replies_without_a_body_end_with_their_head_p005": "P005",
    },
    "transport/http2/test_http2_buckets.py": {
        "test_a_silent_client_is_asked_and_given_up_k006": "K006",
        "test_age_with_its_jitter_and_grace_k005": "K005",
        "test_strikes_k001_k002": "K001 K002",
    },
    "conformance/test_load_generators.py": {
        "test_h2load_over_grpc": "A013",
    },
    "transport/http2/test_http2_attacks.py": {
        "test_a_reply_in_crumbs_a008": "A008",
        "test_continuations_a003": "A003",
        "test_empty_data_a006": "A006",
        "test_empty_data_in_between_a006": "A006",
        "test_floods_of_frames_a007": "A007",
        "test_header_blocks_that_begin_with_nothing_a003": "A003",
        "test_large_header_blocks_a012": "A012",
        "test_made_you_reset_a002": "A002",
        "test_malformed_requests_a011": "A011",
        "test_pings_a004": "A004",
        "test_rapid_reset_a001": "A001",
        "test_rapid_reset_in_one_write_a001": "A001",
        "test_settings_a005": "A005",
        "test_the_budget_of_the_process_a010": "A010",
        "test_what_honest_clients_do_a013": "A013",
    },
    "conformance/test_tls_clients.py": {
        "test_certificates_are_replaced_under_load": "T003",
        "test_grpcio_shows_a_certificate": "T002",
        "test_old_versions_and_suites_are_refused": "T001",
        "test_renegotiation_is_refused": "T001",
    },
    "transport/test_http1_parts.py": {
        "test_a_client_that_shuts_its_side_still_gets_all_p010": "P010",
        "test_chunks_leave_as_they_are_written_and_the_connection_is_kept_p003": "P003",
        "test_http10_reads_to_the_end_of_the_connection_p003": "P003",
        "test_pipelined_requests_wait_for_the_end_p001": "P001",
        "test_replies_without_a_body_p005": "P005",
    },
    "transport/test_http1_rejections.py": {
        "test_refused": "P004 P009",
    },
    "transport/test_http1_timers.py": {
        "test_a_slow_head_is_answered_408_whatever_its_progress": "P009",
    },
}
REFUSED = {"T005": "One process serves a port."}
"""What is not offered, and the words that say so on the page."""


def rules() -> list[str]:
    return [f"{letter}{number:03}" for letter, count in RULES.items() for number in range(1, count + 1)]


@cache
def names_in(file: str) -> tuple[set[str], str]:
    """Return the names of a file's tests, and its text."""
    text = (TESTS / file).read_text(encoding="utf-8")
    found = {node.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)}
    return found, text


@pytest.mark.parametrize("rule", rules())
def test_every_rule_is_proven_or_refused(rule: str) -> None:
    proofs = [
        (file, test) for file, tests in PROVEN.items() for test, numbers in tests.items() if rule in numbers.split()
    ]
    if rule in REFUSED:
        assert not proofs, "it is proven, so it is not refused"
        assert REFUSED[rule] in PAGE.read_text(encoding="utf-8"), "the page does not say so"
        return
    assert proofs, f"no test proves {rule}, and nothing says that it is refused"
    for file, test in proofs:
        names, text = names_in(file)
        assert test in names, f"{file} has no {test}"
        if test in ROWS:
            assert f'"{rule}' in text, f"{file} has no row {rule}"


def test_no_other_rule_is_named() -> None:
    named = {number for tests in PROVEN.values() for numbers in tests.values() for number in numbers.split()}
    assert (named | set(REFUSED)) <= set(rules())
