"""jobcast for Django REST framework, beside ``jobcast.integrations.django``.

>>> urlpatterns = [path("api/jobs/token", TokenView.as_view())]
"""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.exceptions import NotAuthenticated
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from jobcast.integrations.django import conf
from jobcast.integrations.django.sessions import subject_of, token_id_of
from jobcast.integrations.endpoint import PRIVATE


class TokenSerializer(serializers.Serializer):
    """A token, when it expires, and the URL of the server, which may be empty."""

    token = serializers.CharField(read_only=True)
    expires_at = serializers.DateTimeField(read_only=True)
    url = serializers.CharField(read_only=True)


class TokenView(APIView):
    """Issues tokens to users whom the authentication of the API knows, such as by a key.

    Pages with a session can use ``jobcast.integrations.django.urls`` instead.
    """

    permission_classes = (IsAuthenticated,)
    serializer_class = TokenSerializer

    def post(self, request: Request) -> Response:
        """Return ``{token, expires_at, url}``."""
        user = subject_of(request)
        if user is None:
            raise NotAuthenticated
        return Response(
            conf.endpoint().issue(user, jti=token_id_of(request)), headers=dict(PRIVATE)
        )


class SubmissionSerializer(serializers.Serializer):
    """The answer of a view that starts a job.

    >>> submission = submit(build, 10, owner=request.user.pk, jti=token_id_of(request))
    >>> return Response(SubmissionSerializer(submission).data, status=202)
    """

    job_id = serializers.CharField(read_only=True)
    token = serializers.CharField(read_only=True)
    urls: Any = serializers.DictField(child=serializers.CharField(), read_only=True)
