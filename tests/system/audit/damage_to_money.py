"""What can be wrong with money."""

from tests.system.audit.corruption import ELSEWHERE, Corruption

DAMAGE_TO_MONEY = [
    Corruption(
        "V1",
        "money from nowhere",
        "UPDATE accounts SET available_nano = available_nano + 1 WHERE id = {bob}",
        "1",
    ),
    Corruption(
        "V2",
        "a balance without a posting",
        "UPDATE accounts SET available_nano = available_nano + 7 WHERE id = {bob};"
        "UPDATE accounts SET available_nano = available_nano - 7 WHERE id = {alice}",
        "{bob} available",
    ),
    Corruption(
        "V2",
        "a posting lost",
        "DELETE FROM postings WHERE credit_account = {alice} AND document_id = '{deal}'",
        "{alice} available",
    ),
    Corruption("V2", "a side of an account", "UPDATE accounts SET held_nano = 0 WHERE id = {bob}", "{bob} held"),
    Corruption(
        "V2",
        "an account lost",
        "DELETE FROM accounts WHERE id = {dave}",
        "{dave} available",
    ),
    Corruption("V3", "a debt", "UPDATE accounts SET available_nano = -1 WHERE id = {carol}", "{carol}"),
    Corruption("V3", "a hold below nothing", "UPDATE accounts SET held_nano = -1 WHERE id = {carol}", "{carol}"),
    Corruption("V3", "fees owed", "UPDATE accounts SET available_nano = -1 WHERE id = -1", "-1"),
    Corruption("V3", "deposits that went out", "UPDATE accounts SET available_nano = 1 WHERE id = -2", "-2"),
    Corruption("V3", "withdrawals that came in", "UPDATE accounts SET available_nano = -1 WHERE id = -3", "-3"),
    Corruption("V3", "the platform holding", "UPDATE accounts SET held_nano = 1 WHERE id = -4", "-4"),
    Corruption("V3", "unclaimed deposits owed", "UPDATE accounts SET available_nano = -1 WHERE id = -5", "-5"),
    Corruption(
        "V4",
        "held for nothing",
        "UPDATE accounts SET held_nano = held_nano + 5, available_nano = available_nano - 5 WHERE id = {carol}",
        "{carol}",
    ),
    Corruption("V4", "a hold without an account", "UPDATE offers SET author_id = 999 WHERE id = '{offer}'", "999"),
    Corruption("V4", "a hold forgotten", "UPDATE withdrawals SET held_nano = 0 WHERE id = '{withdrawal}'", "{bob}"),
    Corruption(
        "V5", "a closed offer that holds", "UPDATE offers SET held_nano = 1 WHERE id = '{accepted}'", "offer {accepted}"
    ),
    Corruption("V5", "an open offer without", "UPDATE offers SET held_nano = 0 WHERE id = '{offer}'", "offer {offer}"),
    Corruption("V5", "a bid outbid that holds", "UPDATE bids SET held_nano = 1 WHERE id = '{lost}'", "bid {lost}"),
    Corruption("V5", "a raised bid that holds", "UPDATE bids SET held_nano = 1 WHERE id = '{raised}'", "bid {raised}"),
    Corruption(
        "V5",
        "a payout that still holds",
        "UPDATE withdrawals SET held_nano = 1 WHERE id = '{paid}'",
        "withdrawal {paid}",
    ),
    Corruption("V5", "a return without", "UPDATE returns SET held_nano = 0 WHERE id = '{return}'", "return {return}"),
    Corruption(
        "V5",
        "a purchase without",
        "UPDATE channel_purchases SET held_nano = 0 WHERE id = '{purchase}'",
        "channel_purchase {purchase}",
    ),
    Corruption(
        "V5",
        "a failed presale that holds",
        "UPDATE presales SET deposit_held_nano = 1 WHERE id = '{failed}'",
        "presale {failed}",
    ),
    Corruption(
        "V6",
        "two documents' holds confused",
        "UPDATE postings SET document_id = '{paid}' WHERE document_id = '{withdrawal}'",
        "withdrawal {withdrawal} of {bob}",
    ),
    Corruption(
        "V6",
        "another's hold",
        "UPDATE postings SET credit_account = {carol} WHERE document_id = '{offer}'",
        "offer {offer} of {carol}",
    ),
    Corruption(
        "V6",
        "a raise not posted",
        "DELETE FROM postings WHERE document_kind = 'bid' AND amount_nano = 1000000000 AND debit_account = {bob}",
        "bid {auction} of {bob}",
    ),
    Corruption(
        "V6",
        "a penalty not posted",
        "DELETE FROM postings WHERE document_id = '{failed}' AND credit_account = -1",
        "presale {failed} of {alice}",
    ),
    Corruption(
        "V7",
        "an effect of a refused command",
        "UPDATE events SET command_id = '{refused}' WHERE name = 'nft.transferred'",
        "{refused}",
    ),
    Corruption(
        "V7",
        "a deal of a refused command",
        "UPDATE deals SET id = '{refused}' WHERE id = '{deal}'",
        "{refused}",
    ),
    Corruption(
        "V7",
        "a posting of no command",
        f"UPDATE postings SET command_id = '{ELSEWHERE}' WHERE document_kind = 'deal'",
        ELSEWHERE,
    ),
    Corruption("V7", "a posting of nothing", "UPDATE postings SET amount_nano = 0 WHERE id = 1", "posting 1"),
    Corruption(
        "V7",
        "a posting to itself",
        "UPDATE postings SET credit_account = debit_account, credit_side = debit_side WHERE id = 1",
        "posting 1",
    ),
    Corruption(
        "V8",
        "a fee too high",
        "UPDATE deals SET fee_nano = fee_nano + 1, seller_nano = seller_nano - 1 WHERE id = '{deal}'",
        "{deal}",
    ),
    Corruption(
        "V8",
        "a price that is not its parts",
        "UPDATE deals SET price_nano = price_nano + 1 WHERE id = '{deal}'",
        "{deal}",
    ),
    Corruption("V8", "no seller's part", "UPDATE deals SET seller_nano = NULL WHERE id = '{deal}'", "{deal}"),
    Corruption("V8", "no price", "UPDATE deals SET price_nano = NULL WHERE id = '{deal}'", "{deal}"),
    Corruption("V8", "a deal with oneself", "UPDATE deals SET seller_id = buyer_id WHERE id = '{deal}'", "{deal}"),
    Corruption("V9", "a deposit of another amount", "UPDATE deposits SET amount_nano = amount_nano + 1", "-2"),
    Corruption("V9", "an unclaimed deposit forgotten", "DELETE FROM deposits WHERE state = 'unclaimed'", "-5"),
    Corruption(
        "V9", "a deposit assigned twice", "UPDATE deposits SET state = 'unclaimed' WHERE id = '{assigned}'", "-5"
    ),
    Corruption("V10", "another network fee", "UPDATE withdrawals SET network_fee_nano = 8 WHERE id = '{paid}'", "-3"),
    Corruption("V10", "a payout forgotten", "UPDATE withdrawals SET state = 'failed' WHERE id = '{paid}'", "-3"),
    Corruption(
        "V10",
        "a payout that is not on the chain",
        "UPDATE withdrawals SET tx_hash = NULL WHERE id = '{paid}'",
        "withdrawal {paid}",
    ),
    Corruption("V11", "a deal's fee not collected", "UPDATE deals SET fee_nano = 0 WHERE id = '{deal}'", "-1"),
    Corruption("V11", "a payout's fee", "UPDATE withdrawals SET fee_nano = 0 WHERE id = '{paid}'", "-1"),
    Corruption("V11", "a return's fee", "UPDATE returns SET fee_nano = 0 WHERE id = '{returned}'", "-1"),
    Corruption("V11", "a presale's penalty", "UPDATE presales SET penalty_bp = 0 WHERE id = '{failed}'", "-1"),
]
